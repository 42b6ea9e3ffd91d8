"""A claim: one source says that one word was said at one time. What windows, people and decisions work on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gorggle_lambdas.fusion.types import UNKNOWN_SPEAKER, Origin, Window


@dataclass(frozen=True, slots=True)
class WordHypothesis:
    """A word as one source read it.

    Attributes:
        confidence: as the source states it.
        speaker: whose claim it is: a voice's label or a face's key; ``ANYBODY`` where the source does not tell.
        window: start and end of the window that it was read in: near these, words are cut.
        alternatives: claims that were decided against in favour of this one, of the same source.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    origin: Origin
    speaker: str
    window: tuple[float, float]
    alternatives: tuple[WordHypothesis, ...] = ()

    @property
    def duration_s(self) -> float:
        """How long the word lasts."""
        return self.end_s - self.start_s


def sort_hypotheses(claims: Iterable[WordHypothesis]) -> list[WordHypothesis]:
    """Claims by start, then end, then all the rest: the same claims give the same order, however they come."""
    return sorted(
        claims, key=lambda c: (c.start_s, c.end_s, c.text, c.speaker, c.origin, c.confidence, c.window)
    )


def extract_hypotheses(window: Window, prefix: str = "") -> list[WordHypothesis]:
    """All words of a window as claims, by time; ``prefix`` makes speakers' names unique where windows reuse them."""
    bounds = (window.start_s, window.end_s)
    claims = []
    for segment in window.segments:
        speaker = prefix + segment.speaker if segment.speaker != UNKNOWN_SPEAKER else UNKNOWN_SPEAKER
        for word in segment.words:
            claim = WordHypothesis(
                word.text, word.start_s, word.end_s, word.confidence, segment.origin, speaker, bounds
            )
            others = tuple(
                replace(claim, text=other.text, confidence=other.confidence) for other in word.alternatives
            )
            claims.append(replace(claim, alternatives=others))
    return sort_hypotheses(claims)
