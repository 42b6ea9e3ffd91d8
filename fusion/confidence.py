"""Word confidence: calibration, weighting by noise, and combination of sources."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from gorggle_fusion.types import NoiseSpan

# Keeps odds finite.
MIN_PROBABILITY = 1e-4


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps a source's confidence to the fraction of such words that are correct (Platt 1999).

    Log odds are multiplied by ``slope``, then ``offset`` is added; slope 1 and offset 0 change nothing.
    """

    slope: float = 1.0
    offset: float = 0.0

    def probability(self, stated: float) -> float:
        """Return the probability that a word with this confidence (0 to 1) is correct."""
        return _clamp(_expit(self.slope * _logit(_clamp(stated)) + self.offset))


def fit_calibration(stated: Sequence[float], right: Sequence[bool], steps: int = 50) -> Calibration:
    """Fit a calibration to words with known correctness: logistic regression by Newton's method.

    Args:
        stated: confidences from 0 to 1.
        right: whether each word was correct.
        steps: Newton steps; converges within about ten.

    Raises:
        ValueError: there is not at least one correct and one incorrect word.
    """
    if len(stated) != len(right) or not (any(right) and not all(right)):
        raise ValueError(
            f"{sum(right)} of {len(right)} words are correct; a fit needs correct and incorrect ones"
        )
    odds = [_logit(_clamp(confidence)) for confidence in stated]
    slope = offset = 0.0
    for _ in range(steps):
        # A weak prior at slope 1, offset 0 keeps separable words from driving the slope to infinity.
        gradient = [1e-2 * (1 - slope), -1e-2 * offset]
        curvature = [1e-2, 0.0, 1e-2]
        for x, is_right in zip(odds, right, strict=True):
            chance = _expit(slope * x + offset)
            weight = chance * (1 - chance)
            gradient = [gradient[0] + (is_right - chance) * x, gradient[1] + (is_right - chance)]
            curvature = [curvature[0] + weight * x * x, curvature[1] + weight * x, curvature[2] + weight]
        determinant = curvature[0] * curvature[2] - curvature[1] ** 2
        slope += (curvature[2] * gradient[0] - curvature[1] * gradient[1]) / determinant
        offset += (curvature[0] * gradient[1] - curvature[1] * gradient[0]) / determinant
    return Calibration(slope, offset)


@dataclass(frozen=True, slots=True)
class NoiseWeighting:
    """Weight of the audio's words at a signal-to-noise ratio: 0 to 1 along a logistic curve.

    The defaults follow the word accuracy of gorggle-mini-1 on audio alone (docs/models.md; the mean of white noise,
    speech-shaped noise and babble: 94 % at 10 dB, 77 % at 0 dB, 45 % at −10 dB).
    """

    midpoint_db: float = -8.5
    slope_per_db: float = 0.15

    def compute_weight(self, snr_db: float | None) -> float:
        """Return the weight; 1 where no noise was measured."""
        return 1.0 if snr_db is None else _expit(self.slope_per_db * (snr_db - self.midpoint_db))


class NoiseCurve:
    """The measured noise over time."""

    def __init__(self, spans: Sequence[NoiseSpan]) -> None:
        self._spans = sorted(spans, key=lambda span: span.start_s)
        self._starts = [span.start_s for span in self._spans]

    def get_snr_db(self, time_s: float) -> float | None:
        """Return the signal-to-noise ratio at a time; None where it was not measured."""
        index = bisect_right(self._starts, time_s) - 1
        if index < 0 or time_s > self._spans[index].end_s:
            return None
        return self._spans[index].snr_db


def noisy_or(one: float, other: float) -> float:
    """Return the probability that a word is correct on which two sources agree, if their errors are independent."""
    return 1 - (1 - one) * (1 - other)


def winner_probability(winner: float, loser: float) -> float:
    """Return the probability that the winner is correct where two sources disagree: at most one is correct (Bayes)."""
    one, other, neither = winner * (1 - loser), loser * (1 - winner), (1 - winner) * (1 - loser)
    return one / (one + other + neither)


def _clamp(probability: float) -> float:
    return min(max(probability, MIN_PROBABILITY), 1 - MIN_PROBABILITY)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _expit(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
