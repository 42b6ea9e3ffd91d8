"""Rank the hypotheses of a lip reading model by the audio too, as heard by a model for open speech.

Each hypothesis is scored by the model that found it and by the audio's likelihood of its text (``Hypothesis.text_scorer``), a
combination known as rescoring of n-best lists. The scores also give each word's confidence: the share of all hypotheses,
weighted by their probability, that have it ("Confidence measures for large vocabulary continuous speech recognition", Wessel et
al., 2001).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gorggle_fusion.confidence import NoiseWeighting
from gorggle_fusion.text_normalization import normalize
from gorggle_server.events import Hypothesis, TextScorer, Word

# Weights without noise: of the audio's likelihood, and of the first model's own scores from audio alone. On the 66 validation
# clips of GRID, 0.1 to 0.5 and 0.25 to 0.5 give the same errors within one percent (docs/decisions/0020).
_TEXT_WEIGHT, _HEARD_WEIGHT = 0.2, 0.25
# How far both weights fall with the ratio that ``estimate_snr_db`` finds: babble at 0 dB has 8 to 19 dB there, at 10 dB 15 to 25 dB,
# and clips without noise have 19 to 40 dB.
_NOISE_WEIGHTING = NoiseWeighting(midpoint_db=18.0, slope_per_db=0.4)
# A text with more letters than the audio has frames.
_MIN_LIKELIHOOD = -1e6


class AudioLikelihood:
    """The audio's log-likelihood of texts, each computed once."""

    def __init__(self, scorer: TextScorer) -> None:
        self._scorer = scorer
        self._known: dict[str, float] = {}

    def compute(self, texts: Sequence[str]) -> list[float]:
        """Return the log-likelihood of each text; numbers count as spelled out."""
        spelled = [" ".join(map(normalize, text.split())) for text in texts]
        missing = list(dict.fromkeys(text for text in spelled if text not in self._known))
        for text, value in zip(missing, self._scorer.score(missing), strict=True):
            self._known[text] = max(value, _MIN_LIKELIHOOD)
        return [self._known[text] for text in spelled]

    def compute_fit(self, text: str) -> float:
        """Return how well a text fits; see ``TextScorer``."""
        return self._scorer.compute_fit(self.compute([text])[0])


def rank_hypotheses(
    seen: Sequence[Hypothesis], heard: Sequence[Hypothesis], likelihood: AudioLikelihood, snr_db: float
) -> list[Hypothesis]:
    """Rank hypotheses by both scores, with posterior probabilities as the words' confidences.

    Args:
        seen: hypotheses of the lip reading model from its input, with word timestamps.
        heard: the same model's from the audio alone; empty if that is its input, or was not recognized.
        likelihood: of the audio.
        snr_db: signal-to-noise ratio of the audio, from ``estimate_snr_db``.

    Returns:
        The hypotheses of both, best first; the one of ``seen`` of two with the same text.
    """
    by_text = {hypothesis.text: hypothesis for hypothesis in (*heard, *seen)}
    if not by_text:
        return []
    weight = _NOISE_WEIGHTING.compute_weight(snr_db)
    heard_weight = _HEARD_WEIGHT * weight if heard and seen else float(not seen)
    seen_scores, heard_scores = (_collect_scores(side, by_text) for side in (seen, heard))
    likelihoods = likelihood.compute(list(by_text))
    scores = {
        text: (1 - heard_weight) * seen_scores[text]
        + heard_weight * heard_scores[text]
        + _TEXT_WEIGHT * weight * value
        for text, value in zip(by_text, likelihoods, strict=True)
    }
    best = max(scores.values())
    weights = {text: math.exp(score - best) for text, score in scores.items()}
    total = sum(weights.values())
    posteriors = {text: value / total for text, value in weights.items()}
    ranked = sorted(by_text, key=lambda text: -scores[text])
    return [_set_confidence(by_text[text], posteriors) for text in ranked]


def _collect_scores(hypotheses: Sequence[Hypothesis], texts: Mapping[str, object]) -> dict[str, float]:
    """Return the log-probability of each text; one that is not among the hypotheses is as improbable as the last of them."""
    known = {hypothesis.text: hypothesis.log_probability for hypothesis in hypotheses}
    lowest = min(known.values(), default=0.0)
    return {text: known.get(text, lowest) for text in texts}


def _set_confidence(hypothesis: Hypothesis, posteriors: Mapping[str, float]) -> Hypothesis:
    own = [word.text for word in hypothesis.words]
    confidences = [0.0] * len(own)
    for text, posterior in posteriors.items():
        matcher = difflib.SequenceMatcher(None, own, text.split(), autojunk=False)
        for first, _, length in matcher.get_matching_blocks():
            for index in range(first, first + length):
                confidences[index] += posterior
    words = tuple(
        replace(word, confidence=min(confidence, 1.0))
        for word, confidence in zip(hypothesis.words, confidences, strict=True)
    )
    return replace(hypothesis, words=words, confidence=compute_confidence(words))


def compute_confidence(words: Sequence[Word]) -> float:
    """Return the geometric mean of the words' confidences; 0 without words."""
    if not words or not all(word.confidence for word in words):
        return 0.0
    return math.exp(sum(math.log(word.confidence) for word in words) / len(words))
