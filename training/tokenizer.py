"""The output units: a SentencePiece unigram model of the grammar, in which every word is one unit."""

from __future__ import annotations

import io
import string
from dataclasses import dataclass

import numpy as np
import sentencepiece

from training.sentences import VOCABULARY, Split, random_sentence

# The order that the published checkpoints use: these four, then the lines of the dictionary file.
SPECIAL_UNITS = ("<s>", "<pad>", "</s>", "<unk>")
PAD, END = 1, 2

UNITS = 100
TRAINING_SENTENCES = 4000


@dataclass(frozen=True)
class Tokenizer:
    """Text to unit ids and back.

    Attributes:
        units: all units in the order of their ids, the special ones first.
        sentencepiece_model: the serialised SentencePiece model.
    """

    units: tuple[str, ...]
    sentencepiece_model: bytes

    def __post_init__(self) -> None:
        processor = sentencepiece.SentencePieceProcessor(model_proto=self.sentencepiece_model)
        object.__setattr__(self, "_processor", processor)
        object.__setattr__(self, "_ids", {unit: index for index, unit in enumerate(self.units)})

    def encode(self, text: str) -> list[int]:
        """Unit ids of a lower-case text, without the end unit."""
        pieces: list[str] = self._processor.encode(text, out_type=str)  # type: ignore[attr-defined]
        unknown = SPECIAL_UNITS.index("<unk>")
        return [self._ids.get(piece, unknown) for piece in pieces]  # type: ignore[attr-defined]

    def decode(self, ids: list[int]) -> str:
        """The text that unit ids spell; special units are silent."""
        pieces = [self.units[index] for index in ids if index >= len(SPECIAL_UNITS)]
        return "".join(pieces).replace("▁", " ").strip()


def train_tokenizer(seed: int = 0) -> Tokenizer:
    """Learn the units from sentences of the grammar.

    The words are given as units, for the trainer itself proposes only pieces that two different words share. What
    it learns is how to spell words that the grammar lacks, from the grammar's own words in reverse.
    """
    rng = np.random.default_rng(seed)
    words = [word for _ in range(TRAINING_SENTENCES) for word in random_sentence(Split.TRAIN, rng)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([word[::-1] for word in words] + [string.ascii_lowercase]),
        model_writer=model,
        model_type="unigram",
        vocab_size=UNITS,
        hard_vocab_limit=False,
        user_defined_symbols=[f"▁{word}" for word in VOCABULARY],
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = tuple(processor.id_to_piece(index) for index in range(1, processor.get_piece_size()))
    return Tokenizer(SPECIAL_UNITS + pieces, model.getvalue())
