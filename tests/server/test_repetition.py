"""Removal of phrases that a model repeats in a loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_server.repetition import MAX_LOOP_LENGTH, MAX_REPEATS, find_loop_length, remove_loops


def keep(text: str) -> str:
    words = text.split()
    return " ".join(words[index] for index in remove_loops(words))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("no no no no", "no no no no"),
        ("no no no no no", "no"),
        ("well " + "no " * 30 + "thank you", "well no thank you"),
        ("a b " * 5 + "a", "a b"),
        ("a b " * 5 + "a c", "a b c"),
        ("so it is " * 9 + "then " * 7 + "he went", "so it is then he went"),
        (("one two three four five six seven eight " * 5).strip(), "one two three four five six seven eight"),
        (("1 2 3 4 5 6 7 8 9 " * 5).strip(), ("1 2 3 4 5 6 7 8 9 " * 5).strip()),
    ],
)
def test_a_phrase_in_a_loop_is_kept_once(text: str, kept: str) -> None:
    assert keep(text) == kept


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_no_loop_remains_and_the_order_is_kept(items: list[str]) -> None:
    indices = remove_loops(items)
    assert indices == sorted(set(indices))
    kept = [items[index] for index in indices]
    assert not any(find_loop_length(kept[:end]) for end in range(len(kept) + 1))
    if len(items) <= MAX_REPEATS:
        assert kept == items


@given(
    st.lists(st.integers(), min_size=1, max_size=MAX_LOOP_LENGTH, unique=True),
    st.integers(MAX_REPEATS + 1, 12),
)
def test_a_loop_alone_becomes_its_phrase(phrase: list[int], count: int) -> None:
    assert remove_loops(phrase * count) == list(range(len(phrase)))
