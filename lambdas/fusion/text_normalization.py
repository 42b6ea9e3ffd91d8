"""When two words are the same, and how different they are otherwise."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from gorggle.captions.text import find_separator

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


def join_words(texts: Iterable[str]) -> str:
    """Words as one text: with spaces between, but for scripts that set none (Chinese, Japanese, Thai…)."""
    whole = ""
    for text in texts:
        whole += find_separator(whole, text) + text
    return whole
