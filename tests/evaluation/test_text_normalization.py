"""Normalization of words before comparison."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_evaluation.text_normalization import normalize_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't, PLEASE!", ["don't", "please"]),
        ("‘Tis said — “don’t”", ["tis", "said", "don't"]),
        ("the dogs' house", ["the", "dogs", "house"]),
        ("twenty-one", ["twenty", "one"]),
        ("ﬁne café", ["fine", "café"]),
        ("cafe\u0301", ["café"]),
        ("snake_case + 5 %", ["snake", "case", "five"]),
        (
            "At 10:30, the 21st of 1,000.",
            ["at", "ten", "thirty", "the", "twenty", "first", "of", "one", "thousand"],
        ),
        (
            "3.5 kilos in 1984, 2.",
            ["three", "point", "five", "kilos", "in", "nineteen", "eighty", "four", "two"],
        ),
        (
            "0 007 1905 2008",
            [
                "zero",
                "zero",
                "zero",
                "seven",
                "one",
                "thousand",
                "nine",
                "hundred",
                "and",
                "five",
                "two",
                "thousand",
                "and",
                "eight",
            ],
        ),
        ("1234567890", ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero"]),
        (
            "an mp3 of b2b in 5g, 1.2.3",
            ["an", "mp", "three", "of", "b", "two", "b", "in", "five", "g", "one", "two", "three"],
        ),
        ("at F2 now, on the 2nd of 3", ["at", "f", "two", "now", "on", "the", "second", "of", "three"]),
        ("rock ' n ' roll", ["rock", "n", "roll"]),
        ("  \t\u00a0\u200b… ", []),
        ("Ärger STRASSE", ["ärger", "strasse"]),
    ],
)
def test_words_are_normalized(text: str, words: list[str]) -> None:
    assert list(normalize_words(text)) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("1,000,000,000", "one billion"),
        (
            "3.14159265358979",
            "three point one four one five nine two six five three five eight nine seven nine",
        ),
        ("1" * 400 + "th", " ".join(["one"] * 400)),
        (",".join(["1"] + ["000"] * 30), " ".join(["one"] + ["zero"] * 90)),
    ],
)
def test_long_numbers_are_spelled(number: str, words: str) -> None:
    assert " ".join(normalize_words(number)) == words


@given(st.text())
def test_normalization_is_idempotent(text: str) -> None:
    words = normalize_words(text)
    assert normalize_words(" ".join(words)) == words


@given(st.text())
def test_words_are_not_empty_and_contain_no_whitespace(text: str) -> None:
    assert all(word and word.split() == [word] for word in normalize_words(text))
