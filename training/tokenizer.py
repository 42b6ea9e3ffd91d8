"""The output units: a SentencePiece model in which every word of the GRID grammar is one unit, others are one or more."""

from __future__ import annotations

import io
import string
from dataclasses import dataclass

import numpy as np
import sentencepiece

from training.sentences import Corpus, Split, random_sentence

# The order that the published checkpoints use: these four, then the lines of the dictionary file.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
PAD, END = 1, 2

VOCABULARY_SIZE = 400
TRAINING_SENTENCES = 6000  # of each corpus


@dataclass(frozen=True)
class Tokenizer:
    """Text to unit ids and back.

    Attributes:
        tokens: all units in the order of their ids, the special ones first.
        sentencepiece_model: the serialised SentencePiece model.
    """

    tokens: tuple[str, ...]
    sentencepiece_model: bytes

    def __post_init__(self) -> None:
        processor = sentencepiece.SentencePieceProcessor(model_proto=self.sentencepiece_model)
        object.__setattr__(self, "_processor", processor)
        object.__setattr__(self, "_ids", {unit: index for index, unit in enumerate(self.tokens)})

    def encode(self, text: str) -> list[int]:
        """Unit ids of a lower-case text, without the end unit."""
        pieces: list[str] = self._processor.encode(text, out_type=str)  # type: ignore[attr-defined]
        unknown = SPECIAL_TOKENS.index("<unk>")
        return [self._ids.get(piece, unknown) for piece in pieces]  # type: ignore[attr-defined]

    def decode(self, ids: list[int]) -> str:
        """The text that unit ids spell; special units are silent."""
        pieces = [self.tokens[index] for index in ids if index >= len(SPECIAL_TOKENS)]
        return "".join(pieces).replace("▁", " ").strip()


def train_tokenizer(seed: int = 0) -> Tokenizer:
    """Learn the units from sentences of both corpora by byte-pair encoding.

    Its merging makes units of the grammar's words, which are frequent, single letters included; a unigram model would
    take a word for a unit only if the word is a part of others.
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
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = tuple(processor.id_to_piece(index) for index in range(1, processor.get_piece_size()))
    return Tokenizer(SPECIAL_TOKENS + pieces, model.getvalue())
