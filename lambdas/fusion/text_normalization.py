"""Word comparison: normalisation, edit distance, and joining of words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_APOSTROPHES = str.maketrans("‘’ʼ", "'''")


@lru_cache(maxsize=65536)
def normalize(text: str) -> str:
    """Return the form in which words are compared: NFKC, case folded; letters, marks, digits and inner apostrophes only.

    A text without any of those ("♪") is kept.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(
        _APOSTROPHES
    )
    kept = "".join(c for c in folded if c == "'" or unicodedata.category(c)[0] in "LMN").strip("'")
    return kept or folded


@lru_cache(maxsize=65536)
def edit_distance(one: str, other: str) -> float:
    """Return how different two words are, 0 to 1: Levenshtein distance divided by the longer length."""
    one, other = normalize(one), normalize(other)
    if one == other:
        return 0.0
    costs = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        diagonal, costs[0] = costs[0], row
        for column, other_letter in enumerate(other, 1):
            diagonal, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, diagonal + (letter != other_letter)),
            )
    return costs[-1] / max(len(one), len(other), 1)


# Scripts without spaces between words: (first, last) code point of their blocks.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # Han radicals, CJK punctuation, kana, bopomofo
    (0x31A0, 0x9FFF),  # kana extensions, enclosed and unified Han
    (0xF900, 0xFAFF),  # compatibility Han
    (0xFE30, 0xFE4F),  # compatibility forms of CJK punctuation
    (0xFF00, 0xFF9F),  # full-width forms, half-width kana
    (0x20000, 0x3FFFF),  # Han extensions
)


def join_words(texts: Iterable[str]) -> str:
    """Join words to one text, with spaces except in scripts that have none (Chinese, Japanese, Thai…)."""
    result = ""
    for text in texts:
        result += find_separator(result, text) + text
    return result


def find_separator(before: str, after: str) -> str:
    """Return the separator of two words: a space, or empty at either end and within a script without spaces."""
    if not before or not after:
        return ""
    return "" if _is_unspaced(before[-1]) and _is_unspaced(after[0]) else " "


def _is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _UNSPACED)
