"""How far readings are from the truth: word error rate with its parts, and errors of word times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from inference_server.transcript import Word
from training.sentences import GRAMMAR
from training.voices import TimedWord

BOOTSTRAP_SAMPLES = 1000
SHARP_S = 0.1  # a word time within this counts as right

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


@dataclass(frozen=True)
class TimeError:
    """Absolute errors of the times of rightly read words, in milliseconds."""

    median_start_ms: float
    mean_start_ms: float
    median_end_ms: float
    mean_end_ms: float
    within_100_ms: float
    words: int


def error_rate(references: Sequence[str], hypotheses: Sequence[str], seed: int = 0) -> ErrorRate:
    """Word error rate of hypotheses against what was said."""
    process = jiwer.process_words(list(references), list(hypotheses))
    words = np.array([len(reference.split()) for reference in references])
    errors = np.array([_errors(chunks) for chunks in process.alignments])
    return ErrorRate(
        rate=process.wer,
        interval=_interval(errors, words, np.random.default_rng(seed)),
        substitutions=process.substitutions,
        insertions=process.insertions,
        deletions=process.deletions,
        words=int(words.sum()),
        sentences=len(references),
        by_slot=_by_slot(process),
    )


def time_error(
    references: Sequence[Sequence[TimedWord]], hypotheses: Sequence[Sequence[Word]]
) -> TimeError | None:
    """Errors of start and end over the rightly read words; None where no word is right."""
    pairs = [
        pair
        for truth, heard in zip(references, hypotheses, strict=True)
        if truth and heard
        for pair in _right_words(truth, heard)
    ]
    if not pairs:
        return None
    starts = np.array([abs(heard.start_s - truth.start_s) for truth, heard in pairs])
    ends = np.array([abs(heard.end_s - truth.end_s) for truth, heard in pairs])
    return TimeError(
        median_start_ms=1000 * float(np.median(starts)),
        mean_start_ms=1000 * float(starts.mean()),
        median_end_ms=1000 * float(np.median(ends)),
        mean_end_ms=1000 * float(ends.mean()),
        within_100_ms=float(np.mean(np.concatenate([starts, ends]) <= SHARP_S)),
        words=len(pairs),
    )


def _errors(chunks: Sequence[jiwer.AlignmentChunk]) -> int:
    return sum(
        max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in chunks
        if chunk.type != "equal"
    )


def _interval(errors: np.ndarray, words: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    picks = rng.integers(len(errors), size=(BOOTSTRAP_SAMPLES, len(errors)))
    rates = errors[picks].sum(axis=1) / words[picks].sum(axis=1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def _by_slot(process: jiwer.WordOutput) -> dict[str, float]:
    wrong, total = np.zeros(len(GRAMMAR)), np.zeros(len(GRAMMAR))
    for reference, chunks in zip(process.references, process.alignments, strict=True):
        if len(reference) != len(GRAMMAR):
            continue
        total += 1
        for chunk in chunks:
            if chunk.type in ("substitute", "delete"):
                wrong[chunk.ref_start_idx : chunk.ref_end_idx] += 1
    return dict(zip(SLOTS, (wrong / np.maximum(total, 1)).round(4).tolist(), strict=True))


def _right_words(truth: Sequence[TimedWord], heard: Sequence[Word]) -> Iterator[tuple[TimedWord, Word]]:
    process = jiwer.process_words(
        " ".join(word.text for word in truth),
        " ".join(word.text for word in heard),
    )
    for chunk in process.alignments[0]:
        if chunk.type == "equal":
            yield from zip(
                truth[chunk.ref_start_idx : chunk.ref_end_idx],
                heard[chunk.hyp_start_idx : chunk.hyp_end_idx],
                strict=True,
            )
