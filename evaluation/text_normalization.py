"""Text normalization before words are compared."""

from __future__ import annotations

import re
import unicodedata

DESCRIPTION = (
    "Unicode NFKC, lower case, punctuation and symbols replaced by spaces, except apostrophes inside a word"
)

# Typographic apostrophes, which NFKC does not change.
_APOSTROPHES = str.maketrans("‘’ʼ", "'''")
_EDGE_APOSTROPHES = re.compile(r"(?<!\w)'+|'+(?!\w)")
_SEPARATOR_CATEGORIES = ("P", "S", "C", "Z")  # punctuation, symbols, control characters, separators


def normalize_words(text: str) -> tuple[str, ...]:
    """Split a text into normalized words: ``"Don't, PLEASE!"`` becomes ``("don't", "please")``."""
    lower = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
    # Lower-casing can produce characters that are not in NFKC form.
    kept = "".join(_blank_separators(character) for character in unicodedata.normalize("NFKC", lower))
    return tuple(_EDGE_APOSTROPHES.sub(" ", kept).split())


def _blank_separators(character: str) -> str:
    if character == "'" or not unicodedata.category(character).startswith(_SEPARATOR_CATEGORIES):
        return character
    return " "
