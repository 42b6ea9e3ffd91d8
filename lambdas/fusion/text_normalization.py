"""When two words are the same, and how different they are otherwise."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_APOSTROPHES = str.maketrans("‘’ʼ", "'''")


@lru_cache(maxsize=65536)
def normalize(text: str) -> str:
    """The form in which words are compared: Unicode NFKC, case folded, letters, marks, digits and inner apostrophes.

    A text with nothing of that ("♪") stands for itself.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(
        _APOSTROPHES
    )
    kept = "".join(c for c in folded if c == "'" or unicodedata.category(c)[0] in "LMN").strip("'")
    return kept or folded


@lru_cache(maxsize=65536)
def edit_distance(one: str, other: str) -> float:
    """How different two words are: 0 (the same) to 1 (nothing in common); Levenshtein's distance per letter."""
    one, other = normalize(one), normalize(other)
    if one == other:
        return 0.0
    costs = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        diagonal, costs[0] = costs[0], row
        for column, against in enumerate(other, 1):
            diagonal, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, diagonal + (letter != against)),
            )
    return costs[-1] / max(len(one), len(other), 1)


# Scripts that set no spaces between words: (first, last) code point of their blocks.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # Han radicals, CJK punctuation, kana, bopomofo
    (0x31A0, 0x9FFF),  # kana extensions, enclosed and unified Han
    (0xF900, 0xFAFF),  # compatibility Han
    (0xFE30, 0xFE4F),  # compatibility forms of CJK punctuation
    (0xFF00, 0xFF9F),  # full-width forms, half-width kana
    (0x20000, 0x3FFFF),  # further Han
)


def join_words(texts: Iterable[str]) -> str:
    """Words as one text: with spaces between, but for scripts that set none (Chinese, Japanese, Thai…)."""
    whole = ""
    for text in texts:
        whole += find_separator(whole, text) + text
    return whole


def find_separator(before: str, after: str) -> str:
    """What stands between two words: a space; nothing at either end and between words of an unspaced script."""
    if not before or not after:
        return ""
    return "" if _is_unspaced(before[-1]) and _is_unspaced(after[0]) else " "


def _is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _UNSPACED)
