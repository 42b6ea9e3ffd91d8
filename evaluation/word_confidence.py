"""Calibration of word confidences: of the words with confidence 0.8, are 80 % correct?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BINS = 10


@dataclass(frozen=True)
class ConfidenceBin:
    """Recognized words with similar confidences.

    Attributes:
        mean_confidence: from 0 to 1.
        share_correct: from 0 to 1.
    """

    words: int
    mean_confidence: float
    share_correct: float


@dataclass(frozen=True)
class ConfidenceError:
    """How far confidences are from the share of correct words.

    Attributes:
        expected_calibration_error: mean difference of confidence and share of correct words over ten bins of equal width, weighted
            by their words (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015).
        bins: those with words, from low to high confidence.
        words: recognized words; insertions and substitutions are not correct.
    """

    expected_calibration_error: float
    mean_confidence: float
    share_correct: float
    bins: tuple[ConfidenceBin, ...]
    words: int


def compute_confidence_error(words: Sequence[tuple[float, bool]]) -> ConfidenceError | None:
    """Compare confidences with correctness.

    Args:
        words: confidence from 0 to 1, and whether the word is correct.

    Returns:
        None without words.
    """
    if not words:
        return None
    members: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for word in words:
        members[min(int(word[0] * BINS), BINS - 1)].append(word)
    bins = tuple(_summarize(own) for own in members if own)
    whole = _summarize(words)
    error = sum(one.words * abs(one.mean_confidence - one.share_correct) for one in bins) / len(words)
    return ConfidenceError(error, whole.mean_confidence, whole.share_correct, bins, len(words))


def _summarize(words: Sequence[tuple[float, bool]]) -> ConfidenceBin:
    confidences, correct = zip(*words, strict=True)
    return ConfidenceBin(len(words), sum(confidences) / len(words), sum(correct) / len(words))
