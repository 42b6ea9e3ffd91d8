"""Tokenizer of Moonshine: converts token ids to text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gorggle_server.errors import ModelFormatError

_WORD_START = "▁".encode()
# Control tokens, such as "<s>" and "<<ST_5>>", have no text.
_CONTROL_TOKEN = re.compile(rb"<.*>", re.DOTALL)


@dataclass(frozen=True)
class TokenizedWord:
    """A word, and its tokens as a range of positions in the token sequence."""

    text: str
    first: int
    end: int


class Vocabulary:
    """The tokens of a model: bytes of UTF-8 each, because a token may be part of a character."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens = [b"" if _CONTROL_TOKEN.fullmatch(token) else token for token in tokens]

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Load ``tokenizer.bin``: for each token its length, as a varint of base 128, and its bytes.

        Raises:
            ModelFormatError: the file ends within a token.
        """
        data, tokens, position = path.read_bytes(), [], 0
        while position < len(data):
            length, shift, byte = 0, 0, 0x80
            while byte & 0x80 and position < len(data):
                byte = data[position]
                length |= (byte & 0x7F) << shift
                position, shift = position + 1, shift + 7
            tokens.append(data[position : position + length])
            position += length
        if position > len(data):
            raise ModelFormatError(f"{path} ends within token {len(tokens) - 1}: install the package again")
        return cls(tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def split_words(self, ids: Sequence[int]) -> list[TokenizedWord]:
        """Return the words of a token sequence; tokens without text belong to the following word."""
        starts = [index for index, token in enumerate(ids) if self.tokens[token].startswith(_WORD_START)]
        words: list[TokenizedWord] = []
        first = 0
        for end in [*(start for start in starts if start > 0), len(ids)]:
            # One token can hold several words.
            texts = self._join(ids[first:end]).split()
            words += [TokenizedWord(text, first, end) for text in texts]
            first = end if texts else first
        return words

    def _join(self, ids: Sequence[int]) -> str:
        text = b"".join(self.tokens[token] for token in ids)
        return text.replace(_WORD_START, b" ").decode("utf-8", "replace")
