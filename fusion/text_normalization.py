"""Word comparison: normalisation and edit distance."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_APOSTROPHES = str.maketrans("‘’ʼ", "'''")
_NUMBER = re.compile("[0-9]+")
_ONES = (
    *(
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# Longer numbers, and those with a leading zero, are read digit by digit.
_MAX_DIGITS = 6


@lru_cache(maxsize=65536)
def normalize(text: str) -> str:
    """Return the form in which words are compared: NFKC, case folded; letters, marks and inner apostrophes only.

    Numbers are spelled out in English without spaces: "21" and "twenty-one" both become "twentyone", "F2" becomes "ftwo". A
    text without any letter or digit ("♪") is kept.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(
        _APOSTROPHES
    )
    kept = "".join(c for c in folded if c == "'" or unicodedata.category(c)[0] in "LMN").strip("'")
    return _NUMBER.sub(lambda match: _spell_number(match[0]), kept) or folded


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


def _spell_number(digits: str) -> str:
    if len(digits) > _MAX_DIGITS or (digits[0] == "0" and len(digits) > 1):
        return "".join(_ONES[int(digit)] for digit in digits)
    return _spell_integer(int(digits))


def _spell_integer(number: int) -> str:
    if number < len(_ONES):
        return _ONES[number]
    for unit, name in ((1000, "thousand"), (100, "hundred")):
        if number >= unit:
            rest = number % unit
            return _spell_integer(number // unit) + name + (_spell_integer(rest) if rest else "")
    return _TENS[number // 10] + (_ONES[number % 10] if number % 10 else "")
