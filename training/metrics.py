"""How far readings are from the truth: the measures of ``evaluation``, and errors by place in the GRID grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gorggle_evaluation.metrics import Alignment, TimeError, align_words
from gorggle_evaluation.metrics import compute_error_rate as error_rate_of
from gorggle_evaluation.metrics import compute_time_error as time_error_of
from gorggle_server.types import Word
from training.sentences import GRAMMAR
from training.speech_synthesis import TimedWord

SLOTS = ("command", "colour", "preposition", "letter", "digit", "adverb")


@dataclass(frozen=True)
class ErrorRate:
    """Word error rate over sentences: (substitutions + insertions + deletions) / words.

    Attributes:
        interval: 95 % confidence, by resampling sentences.
        by_slot: share of wrong or missing words in each place of the grammar.
    """

    rate: float
    interval: tuple[float, float]
    substitutions: int
    insertions: int
    deletions: int
    words: int
    sentences: int
    by_slot: dict[str, float]


def compute_error_rate(references: Sequence[str], hypotheses: Sequence[str], seed: int = 0) -> ErrorRate:
    """Word error rate of hypotheses against what was said."""
    aligned = [
        align_words(said.split(), read.split()) for said, read in zip(references, hypotheses, strict=True)
    ]
    measured = error_rate_of(aligned, seed)
    return ErrorRate(
        rate=measured.rate,
        interval=measured.interval or (measured.rate, measured.rate),
        substitutions=measured.substitutions,
        insertions=measured.insertions,
        deletions=measured.deletions,
        words=measured.words,
        sentences=measured.clips,
        by_slot=_error_rates_by_slot(aligned),
    )


def compute_time_error(
    references: Sequence[Sequence[TimedWord]], hypotheses: Sequence[Sequence[Word]]
) -> TimeError | None:
    """Errors of start and end over the rightly read words; None where no word is right."""
    return time_error_of(
        [
            (truth[said], heard[read])
            for truth, heard in zip(references, hypotheses, strict=True)
            for said, read in align_words(
                [word.text for word in truth], [word.text for word in heard]
            ).correct
        ]
    )


def _error_rates_by_slot(aligned: Sequence[Alignment]) -> dict[str, float]:
    sentences = [sentence for sentence in aligned if sentence.words == len(GRAMMAR)]
    wrong = np.zeros(len(GRAMMAR))
    for sentence in sentences:
        for place in (*sentence.deletions, *(said for said, _ in sentence.substitutions)):
            wrong[place] += 1
    return dict(zip(SLOTS, (wrong / max(len(sentences), 1)).round(4).tolist(), strict=True))
