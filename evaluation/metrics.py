"""How far readings are from the truth: word error rate with its parts, and errors of word times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jiwer
import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_SAMPLES = 1000
# A word time within this counts as right: the strict limit, and the one that captions need.
TIGHT_TOLERANCE_S, CAPTION_TOLERANCE_S = 0.1, 0.12


class TimeSpan(Protocol):
    """Anything with a start and an end."""

    @property
    def start_s(self) -> float:
        """When it begins."""

    @property
    def end_s(self) -> float:
        """When it ends."""


@dataclass(frozen=True)
class Alignment:
    """What was said beside what was read, with the fewest errors.

    Attributes:
        correct: pairs of places (said, read) where the words are the same.
        substitutions: pairs of places where another word was read.
        deletions: places of words that were said and not read.
        insertions: places of words that were read and not said.
    """

    correct: tuple[tuple[int, int], ...]
    substitutions: tuple[tuple[int, int], ...]
    deletions: tuple[int, ...]
    insertions: tuple[int, ...]

    @property
    def words(self) -> int:
        """How many words were said."""
        return len(self.correct) + len(self.substitutions) + len(self.deletions)

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions."""
        return len(self.substitutions) + len(self.insertions) + len(self.deletions)


@dataclass(frozen=True)
class ErrorRate:
    """Word error rate over clips: (substitutions + insertions + deletions) / words that were said.

    Attributes:
        interval: 95 % confidence, by resampling clips; None for a single clip, which tells nothing of others.
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
    """Absolute errors of the times of rightly read words, in milliseconds, and shares from 0 to 1.

    Attributes:
        median_ms: of starts and ends together.
        within_100_ms: share of starts and ends, each on its own, that are so near; within_120_ms likewise.
        words_within_100_ms: share of words whose start and end both are so near; words_within_120_ms likewise.
        words: rightly read words whose times are known.
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
    """Align words by the fewest substitutions, insertions and deletions (Levenshtein)."""
    if not reference:
        return Alignment((), (), (), tuple(range(len(hypothesis))))
    right: list[tuple[int, int]] = []
    substituted: list[tuple[int, int]] = []
    deleted: list[int] = []
    inserted: list[int] = []
    for chunk in jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]:
        said_places = range(chunk.ref_start_idx, chunk.ref_end_idx)
        read_places = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if chunk.type == "delete":
            deleted += said_places
        elif chunk.type == "insert":
            inserted += read_places
        else:
            pairs = right if chunk.type == "equal" else substituted
            pairs += zip(said_places, read_places, strict=True)
    return Alignment(tuple(right), tuple(substituted), tuple(deleted), tuple(inserted))


def compute_error_rate(alignments: Sequence[Alignment], seed: int = 0) -> ErrorRate:
    """Word error rate over clips.

    Args:
        alignments: one a clip; at least one, and a word was said in each.
        seed: of the resampling for the interval.
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
    """95 % confidence of sum(counts) / sum(totals), both (clips,), by bootstrap over clips; None for a single one.

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation"
    (ICASSP 2004).
    """
    if len(counts) < 2:
        return None
    rng = np.random.default_rng(seed)
    rates = np.empty(BOOTSTRAP_SAMPLES)
    for sample in range(BOOTSTRAP_SAMPLES):
        chosen = rng.integers(len(counts), size=len(counts))
        rates[sample] = counts[chosen].sum() / totals[chosen].sum()
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def compute_time_offsets_s(pairs: Sequence[tuple[TimeSpan, TimeSpan]]) -> NDArray[np.float64]:
    """How much later starts and ends were read than they are: (words, 2), seconds, from pairs (said, read)."""
    offsets = [(read.start_s - said.start_s, read.end_s - said.end_s) for said, read in pairs]
    return np.array(offsets, np.float64).reshape(-1, 2)


def compute_time_error(pairs: Sequence[tuple[TimeSpan, TimeSpan]]) -> TimeError | None:
    """Errors of start and end over pairs (said, read) of rightly read words; None where there is none."""
    if not pairs:
        return None
    errors_s = np.abs(compute_time_offsets_s(pairs))
    # Times come in whole milliseconds; what is 100 ms off on paper must not be more by a rounding of binary numbers.
    errors_ms = np.round(1000 * errors_s, 6)
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
        words=len(pairs),
    )
