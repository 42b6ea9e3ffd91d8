"""Text normalization before words are compared."""

from __future__ import annotations

import functools
import re
import unicodedata

import inflect

DESCRIPTION = (
    "Unicode NFKC, lower case, numbers spelled out in English, punctuation and symbols replaced by spaces, except "
    "apostrophes inside a word"
)

# Typographic apostrophes, which NFKC does not change.
_APOSTROPHES = str.maketrans("‘’ʼ", "'''")
_EDGE_APOSTROPHES = re.compile(r"(?<!\w)'+|'+(?!\w)")
# Between the letters and the digits of "F2", but not of "2nd".
_LETTER_AND_DIGIT = re.compile(r"(?<=[^\W\d_])(?=[0-9])|(?<=[0-9])(?!(?:st|nd|rd|th)(?!\w))(?=[^\W\d_])")
# "21", "1,000", "3.5", "2nd".
_NUMBER = re.compile(
    r"(?<!\w)(?<![0-9][.,])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+|st|nd|rd|th)?(?!\w|[.,][0-9])"
)
# Longer numbers, such as telephone numbers, are read digit by digit; thousands separators mark a quantity.
_MAX_DIGITS, _MAX_SEPARATED_DIGITS = 9, 15
_SEPARATOR_CATEGORIES = ("P", "S", "C", "Z")  # punctuation, symbols, control characters, separators


def normalize_words(text: str) -> tuple[str, ...]:
    """Split a text into normalized words: ``"Don't, PLEASE!"`` becomes ``("don't", "please")``.

    Recognizers differ in how they write numbers: ``"21"`` and ``"twenty-one"`` both become ``("twenty", "one")``, ``"F2"``
    becomes ``("f", "two")``.
    """
    lower = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
    # Lower-casing can produce characters that are not in NFKC form.
    separated = _LETTER_AND_DIGIT.sub(" ", unicodedata.normalize("NFKC", lower))
    spelled = _NUMBER.sub(lambda match: _spell_number(match[0]), separated)
    words = _split_words(spelled)
    # Separators hid the numbers of "1.2.3".
    return tuple(
        part
        for word in words
        for part in (_split_words(_spell_number(word)) if re.fullmatch("[0-9]+", word) else (word,))
    )


def _split_words(text: str) -> list[str]:
    kept = "".join(map(_blank_separators, text))
    return _EDGE_APOSTROPHES.sub(" ", kept).split()


def _blank_separators(character: str) -> str:
    if character == "'" or not unicodedata.category(character).startswith(_SEPARATOR_CATEGORIES):
        return character
    return " "


@functools.cache
def _spell_number(number: str) -> str:
    """Spell a number as it is most often read: ``"1984"`` becomes ``"nineteen, eighty-four"``."""
    digits = len(re.match("[0-9,]+", number)[0].replace(",", ""))  # type: ignore[index]
    limit = _MAX_SEPARATED_DIGITS if "," in number else _MAX_DIGITS
    if digits > limit or re.match("0[0-9]", number):
        return " ".join(_spell_number(digit) for digit in re.findall("[0-9]", number))
    is_year = len(number) == 4 and number.isdecimal() and "1100" < number < "2100" and number[2] != "0"
    return str(_engine().number_to_words(number, group=2 if is_year else 0))


@functools.cache
def _engine() -> inflect.engine:
    return inflect.engine()
