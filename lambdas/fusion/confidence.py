"""How sure one may be of a word: stated confidence made honest, weighed by noise, and put together."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from gorggle_lambdas.fusion.types import NoiseSpan

# No source is ever wholly sure or unsure: keeps odds finite.
MIN_PROBABILITY = 1e-4


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turns a confidence that a source states into the share of such words that are right (Platt 1999).

    The log odds are taken times ``slope`` plus ``offset``; slope 1 and offset 0 believe the source.
    """

    slope: float = 1.0
    offset: float = 0.0

    def probability(self, stated: float) -> float:
        """How likely a word is right whose source states this confidence, 0 to 1."""
        return _clamp(_expit(self.slope * _logit(_clamp(stated)) + self.offset))


def fit_calibration(stated: Sequence[float], right: Sequence[bool], steps: int = 50) -> Calibration:
    """Fit a calibration to words whose truth is known: logistic regression by Newton's method.

    Args:
        stated: confidences from 0 to 1.
        right: whether each word was right.
        steps: of Newton's method; it settles within ten or so.

    Raises:
        ValueError: no word, or not one right and one wrong: then nothing can be fitted.
    """
    if len(stated) != len(right) or not (any(right) and not all(right)):
        raise ValueError(
            f"{sum(right)} of {len(right)} words are right; a fit needs right ones and wrong ones"
        )
    odds = [_logit(_clamp(confidence)) for confidence in stated]
    slope = offset = 0.0
    for _ in range(steps):
        # A little weight on slope 1, offset 0 keeps separable words from driving the slope to infinity.
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
    """How much the sound is worth at a signal-to-noise ratio: 0 to 1 along a logistic curve.

    The defaults follow the word accuracy of gorggle-mini-1 reading sound alone (docs/models.md; the mean of white
    noise, speech-shaped noise and babble: 94 % at 10 dB, 77 % at 0 dB, 45 % at −10 dB).
    """

    midpoint_db: float = -8.5
    slope_per_db: float = 0.15

    def compute_weight(self, snr_db: float | None) -> float:
        """The weight of the sound's words; 1 where no noise was measured."""
        return 1.0 if snr_db is None else _expit(self.slope_per_db * (snr_db - self.midpoint_db))


class NoiseCurve:
    """The measured noise by time."""

    def __init__(self, spans: Sequence[NoiseSpan]) -> None:
        self._spans = sorted(spans, key=lambda stretch: stretch.start_s)
        self._starts = [stretch.start_s for stretch in self._spans]

    def get_snr_db(self, time_s: float) -> float | None:
        """The signal-to-noise ratio at a moment; None where it was not measured."""
        index = bisect_right(self._starts, time_s) - 1
        if index < 0 or time_s > self._spans[index].end_s:
            return None
        return self._spans[index].snr_db


def noisy_or(one: float, other: float) -> float:
    """How likely a word is right that two sources read alike: they err independently (noisy or)."""
    return 1 - (1 - one) * (1 - other)


def winner_probability(winner: float, loser: float) -> float:
    """How likely the winner is right where two sources disagree: one of them is, or neither; not both (Bayes)."""
    mine, theirs, nobody = winner * (1 - loser), loser * (1 - winner), (1 - winner) * (1 - loser)
    return mine / (mine + theirs + nobody)


def _clamp(probability: float) -> float:
    return min(max(probability, MIN_PROBABILITY), 1 - MIN_PROBABILITY)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _expit(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
