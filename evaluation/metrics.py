"""Word error rate and word timestamp errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_SAMPLES = 1000
# A timestamp within this counts as correct: a strict limit, and one that suffices for captions.
TIGHT_TOLERANCE_S, CAPTION_TOLERANCE_S = 0.1, 0.12


@dataclass(frozen=True)
class Alignment:
    """A minimal-edit alignment of reference and hypothesis words.

    Attributes:
        correct: index pairs (reference, hypothesis) of equal words.
        substitutions: index pairs (reference, hypothesis) of different words.
        deletions: indices of reference words.
        insertions: indices of hypothesis words.
    """

    correct: tuple[tuple[int, int], ...]
    substitutions: tuple[tuple[int, int], ...]
    deletions: tuple[int, ...]
    insertions: tuple[int, ...]

    @property
    def words(self) -> int:
        """Return the number of reference words."""
        return len(self.correct) + len(self.substitutions) + len(self.deletions)

    @property
    def errors(self) -> int:
        """Return the number of substitutions, insertions and deletions."""
        return len(self.substitutions) + len(self.insertions) + len(self.deletions)


@dataclass(frozen=True)
class ErrorRate:
    """Word error rate over clips: (substitutions + insertions + deletions) / reference words.

    Attributes:
        interval: 95 % confidence interval, bootstrapped over clips; None for a single clip.
    """

    rate: float
    interval: tuple[float, float] | None
    substitutions: int
    insertions: int
    deletions: int
    words: int
    clips: int


@dataclass(frozen=True)
class TimeError:
    """Absolute timestamp errors of correctly recognized words, in milliseconds, and shares from 0 to 1.

    Attributes:
        median_ms: over starts and ends together.
        within_100_ms: share of starts and ends within 100 ms; within_120_ms likewise.
        words_within_100_ms: share of words with both start and end within 100 ms; words_within_120_ms likewise.
        words: correctly recognized words with timestamps.
    """

    median_start_ms: float
    mean_start_ms: float
    median_end_ms: float
    mean_end_ms: float
    median_ms: float
    within_100_ms: float
    within_120_ms: float
    words_within_100_ms: float
    words_within_120_ms: float
    words: int


def align_words(reference: Sequence[str], hypothesis: Sequence[str]) -> Alignment:
    """Align words with the fewest substitutions, insertions and deletions (Levenshtein)."""
    if not reference:
        return Alignment((), (), (), tuple(range(len(hypothesis))))
    correct: list[tuple[int, int]] = []
    substitutions: list[tuple[int, int]] = []
    deletions: list[int] = []
    insertions: list[int] = []
    for chunk in jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]:
        reference_indices = range(chunk.ref_start_idx, chunk.ref_end_idx)
        hypothesis_indices = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if chunk.type == "delete":
            deletions += reference_indices
        elif chunk.type == "insert":
            insertions += hypothesis_indices
        else:
            pairs = correct if chunk.type == "equal" else substitutions
            pairs += zip(reference_indices, hypothesis_indices, strict=True)
    return Alignment(tuple(correct), tuple(substitutions), tuple(deletions), tuple(insertions))


def compute_error_rate(alignments: Sequence[Alignment], seed: int = 0) -> ErrorRate:
    """Compute the word error rate over clips.

    Args:
        alignments: one per clip, at least one; each has at least one reference word.
        seed: of the bootstrap.
    """
    words = np.array([clip.words for clip in alignments])
    errors = np.array([clip.errors for clip in alignments])
    return ErrorRate(
        rate=float(errors.sum() / words.sum()),
        interval=bootstrap_interval(errors, words, seed),
        substitutions=sum(len(clip.substitutions) for clip in alignments),
        insertions=sum(len(clip.insertions) for clip in alignments),
        deletions=sum(len(clip.deletions) for clip in alignments),
        words=int(words.sum()),
        clips=len(alignments),
    )


def bootstrap_interval(
    counts: NDArray[np.int64], totals: NDArray[np.int64], seed: int
) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of sum(counts) / sum(totals), both (clips,); None for a single clip.

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation"
    (ICASSP 2004).
    """
    if len(counts) < 2:
        return None
    rng = np.random.default_rng(seed)
    samples = (rng.integers(len(counts), size=len(counts)) for _ in range(BOOTSTRAP_SAMPLES))
    rates = [counts[selected].sum() / totals[selected].sum() for selected in samples]
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def compute_time_offsets_s(pairs: Iterable[tuple[Any, Any]]) -> NDArray[np.float64]:
    """Return the offsets of starts and ends in seconds, (words, 2), from pairs (reference, hypothesis) of words."""
    offsets = [
        (hypothesis.start_s - reference.start_s, hypothesis.end_s - reference.end_s)
        for reference, hypothesis in pairs
    ]
    return np.array(offsets, np.float64).reshape(-1, 2)


def compute_time_error(offsets_s: NDArray[np.float64]) -> TimeError | None:
    """Compute timestamp errors from the offsets (words, 2) of correct words; None if there are none."""
    if not len(offsets_s):
        return None
    # Timestamps are whole milliseconds: an error of exactly 100 ms must not exceed the limit by float rounding.
    errors_ms = np.round(1000 * np.abs(offsets_s), 6)
    starts, ends, worst = errors_ms[:, 0], errors_ms[:, 1], errors_ms.max(axis=1)
    return TimeError(
        median_start_ms=float(np.median(starts)),
        mean_start_ms=float(starts.mean()),
        median_end_ms=float(np.median(ends)),
        mean_end_ms=float(ends.mean()),
        median_ms=float(np.median(errors_ms)),
        within_100_ms=float(np.mean(errors_ms <= 1000 * TIGHT_TOLERANCE_S)),
        within_120_ms=float(np.mean(errors_ms <= 1000 * CAPTION_TOLERANCE_S)),
        words_within_100_ms=float(np.mean(worst <= 1000 * TIGHT_TOLERANCE_S)),
        words_within_120_ms=float(np.mean(worst <= 1000 * CAPTION_TOLERANCE_S)),
        words=len(offsets_s),
    )
