"""The form in which words are compared: what was said and what was read differ in words, not in how they are written."""

from __future__ import annotations

import re
import unicodedata

DESCRIPTION = (
    "Unicode NFKC, lower case, punctuation and symbols taken as blanks, except apostrophes inside a word"
)

# Typographic apostrophes, which NFKC leaves alone.
_APOSTROPHES = str.maketrans("‘’ʼ", "'''")
_EDGE_APOSTROPHES = re.compile(r"(?<!\w)'+|'+(?!\w)")
_SEPARATOR_CATEGORIES = ("P", "S", "C", "Z")  # punctuation, symbols, control characters, separators


def normalize_words(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared: ``"Don't, PLEASE!"`` gives ``("don't", "please")``."""
    lower = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
    # Lower case may bring a form back that NFKC had taken away.
    kept = "".join(_blank_separators(character) for character in unicodedata.normalize("NFKC", lower))
    return tuple(_EDGE_APOSTROPHES.sub(" ", kept).split())


def _blank_separators(character: str) -> str:
    if character == "'" or not unicodedata.category(character).startswith(_SEPARATOR_CATEGORIES):
        return character
    return " "
