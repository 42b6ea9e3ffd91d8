"""Tokenizer: converts token ids to text and text to token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from gorggle_server.avhubert.config import BOS, EOS, PAD, UNK
from gorggle_server.errors import ModelFormatError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

WORD_START = "▁"
"""SentencePiece's marker of a word start (U+2581, not an underscore)."""

RESERVED_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
"""The special tokens at ids 0 to 3 of every dictionary."""

_SILENT_TOKENS = frozenset({BOS, PAD, EOS})


def detokenize(pieces: Iterable[str]) -> str:
    """Join pieces to text: "▁go", "ne", "▁now" become "gone now"."""
    return "".join(pieces).replace(WORD_START, " ").strip()


class Vocabulary:
    """The tokens of one model and its SentencePiece model.

    Ids are those of the dictionary. SentencePiece uses other ids, so its pieces are looked up by their text.
    """

    def __init__(self, tokens: Sequence[str], sentencepiece_model: bytes | None = None) -> None:
        if tuple(tokens[: len(RESERVED_TOKENS)]) != RESERVED_TOKENS:
            raise ModelFormatError(
                f"the dictionary starts with {list(tokens[:4])}; expected {list(RESERVED_TOKENS)}"
            )
        self.tokens = list(tokens)
        self.sentencepiece_model = sentencepiece_model

    def __len__(self) -> int:
        return len(self.tokens)

    def to_pieces(self, tokens: Iterable[int]) -> list[str]:
        """Return the piece of each id, without ``<s>``, ``<pad>`` and ``</s>``."""
        return [self.tokens[token] for token in tokens if token not in _SILENT_TOKENS]

    def decode(self, tokens: Iterable[int]) -> str:
        """Convert token ids to text."""
        return detokenize(self.to_pieces(tokens))

    def encode(self, text: str) -> list[int]:
        """Convert text to token ids, without ``</s>``; unknown pieces become ``<unk>``.

        Raises:
            ModelFormatError: the checkpoint has no SentencePiece model, or a damaged one.
        """
        pieces: list[str] = self._processor.EncodeAsPieces(text)
        return [self._ids.get(piece, UNK) for piece in pieces]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def _processor(self) -> SentencePieceProcessor:
        # Imported here because only training needs SentencePiece.
        from sentencepiece import SentencePieceProcessor

        if self.sentencepiece_model is None:
            raise ModelFormatError("the checkpoint has no SentencePiece model, so text cannot be tokenized")
        try:
            return SentencePieceProcessor(model_proto=self.sentencepiece_model)
        except RuntimeError as error:
            raise ModelFormatError(f"the checkpoint's SentencePiece model is damaged: {error}") from error
