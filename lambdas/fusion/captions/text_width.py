"""Characters: which may stand in a caption, how wide they are, where a word that fits on no line is cut."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

# Invisible characters that shape text (joiners, direction marks) and number signs that Unicode files with them.
_ALLOWED_FORMAT_CHARS = frozenset(
    "\u200c\u200d\u200e\u200f\u061c\u06dd\u070f\u0890\u0891\u08e2\U000110bd"
) | frozenset(map(chr, range(0x600, 0x606)))
_JOINER = "\u200d"
# May not begin a line (kinsoku).
_CLOSING = frozenset(
    "、。，．・：；！？）〕］｝〉》」』】’”…ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ,.!?:;)]}"
)


def clean_text(text: str) -> str:
    """Text on one line that no caption format can stumble over.

    White space of every kind becomes single spaces. Taken out: control characters; embeddings and overrides of
    direction, which would reach beyond their line (the marks U+200E and U+200F, which do not, stay); half characters
    and code points that are none, which XML cannot hold.
    """
    words = ("".join(c for c in word if _is_allowed(c)) for word in text.split())
    # Taking a character out may leave a word of nothing visible.
    return " ".join(word for word in words if any(unicodedata.category(c) != "Cf" for c in word))


def _is_allowed(character: str) -> bool:
    code, category = ord(character), unicodedata.category(character)
    if category in ("Cc", "Cs") or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return False
    return category != "Cf" or character in _ALLOWED_FORMAT_CHARS


def display_width(text: str) -> int:
    """Columns that a text takes: full-width characters two, combining and invisible ones none, all others one."""
    return len(text) if text.isascii() else sum(map(_count_columns, text))


@lru_cache(maxsize=4096)
def _count_columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def split_word(word: str, max_columns: int) -> Iterator[str]:
    """Cut a word to pieces of at most some columns, never between a letter and its marks where that is possible."""
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
    """A piece and what goes over to the next one: its last letter where that one would begin with a closing mark."""
    clusters = list(_iter_graphemes(piece))
    if following[0] in _CLOSING and len(clusters) > 2:
        return "".join(clusters[:-1]), clusters[-1]
    return piece, ""


def _iter_graphemes(text: str) -> Iterator[str]:
    """Letters with their marks, roughly Unicode's grapheme clusters."""
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
    """Whether the first letter with a direction is of a script written from right to left."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False
