"""Word comparison: normalisation, edit distance, and joining of words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from gorggle.captions.text import find_separator

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


def join_words(texts: Iterable[str]) -> str:
    """Join words to one text, with spaces except in scripts that have none (Chinese, Japanese, Thai…)."""
    result = ""
    for text in texts:
        result += find_separator(result, text) + text
    return result
