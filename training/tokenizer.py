"""Output tokens: a SentencePiece model in which every word of the GRID grammar is one token."""

from __future__ import annotations

import io
import string
from dataclasses import dataclass

import numpy as np
import sentencepiece

from training.sentences import Corpus, Split, random_sentence

# Order of the published checkpoints: these four, then the lines of the dictionary file.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
PAD, END = 1, 2

VOCABULARY_SIZE = 400
TRAINING_SENTENCES = 6000  # per corpus


@dataclass(frozen=True)
class Tokenizer:
    """Converts text to token ids and back.

    Attributes:
        tokens: all tokens in the order of their ids, the special ones first.
        sentencepiece_model: the serialised SentencePiece model.
    """

    tokens: tuple[str, ...]
    sentencepiece_model: bytes

    def __post_init__(self) -> None:
        sentencepiece_processor = sentencepiece.SentencePieceProcessor(model_proto=self.sentencepiece_model)
        object.__setattr__(self, "_sentencepiece", sentencepiece_processor)
        object.__setattr__(self, "_ids", {token: index for index, token in enumerate(self.tokens)})

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a lower-case text, without the end token."""
        pieces: list[str] = self._sentencepiece.encode(text, out_type=str)  # type: ignore[attr-defined]
        unknown = SPECIAL_TOKENS.index("<unk>")
        return [self._ids.get(piece, unknown) for piece in pieces]  # type: ignore[attr-defined]

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids; special tokens are omitted."""
        pieces = [self.tokens[index] for index in ids if index >= len(SPECIAL_TOKENS)]
        return "".join(pieces).replace("▁", " ").strip()


def train_tokenizer(seed: int = 0) -> Tokenizer:
    """Learn the tokens from sentences of both corpora by byte-pair encoding.

    It makes tokens of the grammar's frequent words, including single letters; a unigram model would do so only for words
    that are parts of others.
    """
    rng = np.random.default_rng(seed)
    texts = [
        " ".join(random_sentence(Split.TRAIN, rng, corpus)).lower()
        for corpus in Corpus
        for _ in range(TRAINING_SENTENCES)
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, string.ascii_lowercase]),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY_SIZE,
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    sentencepiece_processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = tuple(
        sentencepiece_processor.id_to_piece(index)
        for index in range(1, sentencepiece_processor.get_piece_size())
    )
    return Tokenizer(SPECIAL_TOKENS + pieces, model.getvalue())
