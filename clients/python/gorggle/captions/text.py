"""Caption text: allowed characters, display width, word separators, and splitting of words longer than a line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

# Invisible characters that shape text (joiners, direction marks), and number signs of the same Unicode category.
_ALLOWED_FORMAT_CHARS = frozenset(
    "\u200c\u200d\u200e\u200f\u061c\u06dd\u070f\u0890\u0891\u08e2\U000110bd"
) | frozenset(map(chr, range(0x600, 0x606)))
_JOINER = "\u200d"
# May not begin a line (kinsoku).
_CLOSING = frozenset(
    "、。，．・：；！？）〕］｝〉》」』】’”…ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ,.!?:;)]}"
)
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
    (0x20000, 0x3FFFF),  # further Han
)


def clean_text(text: str) -> str:
    """Return text as one line that is valid in every caption format.

    Any white space becomes a single space. Removed: control characters; embeddings and overrides of direction, which
    affect text beyond their line (the marks U+200E and U+200F do not and stay); surrogates and noncharacters, which XML
    cannot hold.
    """
    words = ("".join(c for c in word if _is_allowed(c)) for word in text.split())
    # Removing characters may leave a word without visible ones.
    return " ".join(word for word in words if any(unicodedata.category(c) != "Cf" for c in word))


def _is_allowed(character: str) -> bool:
    code, category = ord(character), unicodedata.category(character)
    if category in ("Cc", "Cs") or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return False
    return category != "Cf" or character in _ALLOWED_FORMAT_CHARS


def find_separator(before: str, after: str) -> str:
    """Return the separator of two texts: a space; nothing at either end and within scripts without spaces."""
    if not before or not after:
        return ""
    return "" if _is_unspaced(before[-1]) and _is_unspaced(after[0]) else " "


def _is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _UNSPACED)


def display_width(text: str) -> int:
    """Return the columns of a text: two per full-width character, none per combining or invisible one, else one."""
    return len(text) if text.isascii() else sum(map(_count_columns, text))


@lru_cache(maxsize=4096)
def _count_columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def split_word(word: str, max_columns: int) -> Iterator[str]:
    """Split a word into pieces of at most ``max_columns``, between a letter and its marks only if unavoidable."""
    piece = ""
    for cluster in _iter_graphemes(word):
        for part in [cluster] if display_width(cluster) <= max_columns else cluster:
            if piece and display_width(piece) + display_width(part) > max_columns:
                head, piece = _avoid_orphan(piece, part)
                yield head
            piece += part
    if piece:
        yield piece


def _avoid_orphan(piece: str, following: str) -> tuple[str, str]:
    """Move the last letter of a piece to the next one if that would begin with a closing mark."""
    clusters = list(_iter_graphemes(piece))
    if following[0] in _CLOSING and len(clusters) > 2:
        return "".join(clusters[:-1]), clusters[-1]
    return piece, ""


def _iter_graphemes(text: str) -> Iterator[str]:
    """Yield letters with their marks, roughly Unicode's grapheme clusters."""
    cluster = ""
    for character in text:
        attaches = (
            unicodedata.category(character)[0] == "M" or character == _JOINER or cluster.endswith(_JOINER)
        )
        if cluster and not attaches:
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction belongs to a right-to-left script."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False
