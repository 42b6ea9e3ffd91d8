"""Word hypotheses: one source's words, the input of window merging, speaker resolution and word voting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gorggle_fusion.types import UNKNOWN_SPEAKER, Origin, Window


@dataclass(frozen=True, slots=True)
class WordHypothesis:
    """A word as one source transcribed it.

    Attributes:
        confidence: as stated by the source.
        speaker: a voice's label or a face's key; ``UNKNOWN_SPEAKER`` where the source does not distinguish speakers.
        window: start and end of the window it comes from; words near these may be cut.
        alternatives: rejected hypotheses of the same source.
        yields_to_audio: transcribed from the audio by a lip reading model with a closed vocabulary, while an engine with an
            open one transcribed the audio too.
        is_doubtful: its source marked it as probably wrong.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    origin: Origin
    speaker: str
    window: tuple[float, float]
    alternatives: tuple[WordHypothesis, ...] = ()
    yields_to_audio: bool = False
    is_doubtful: bool = False

    @property
    def is_of_lip_model(self) -> bool:
        """Whether the model that reads lips transcribed it, be it from the audio."""
        return self.origin != "audio" or self.yields_to_audio

    @property
    def duration_s(self) -> float:
        """Duration of the word."""
        return self.end_s - self.start_s


def sort_hypotheses(hypotheses: Iterable[WordHypothesis]) -> list[WordHypothesis]:
    """Sort by start, end, then all other fields, so that the order does not depend on the input's."""
    return sorted(
        hypotheses, key=lambda c: (c.start_s, c.end_s, c.text, c.speaker, c.origin, c.confidence, c.window)
    )


def extract_hypotheses(window: Window, prefix: str = "") -> list[WordHypothesis]:
    """Return all words of a window, sorted; ``prefix`` makes speaker labels unique if windows reuse them."""
    bounds = (window.start_s, window.end_s)
    hypotheses = []
    for segment in window.segments:
        speaker = prefix + segment.speaker if segment.speaker != UNKNOWN_SPEAKER else UNKNOWN_SPEAKER
        for word in segment.words:
            origin = word.origin or segment.origin
            hypothesis = WordHypothesis(
                word.text,
                word.start_s,
                word.end_s,
                word.confidence,
                origin,
                speaker,
                bounds,
                is_doubtful=segment.is_doubtful,
            )
            others = tuple(
                replace(hypothesis, text=other.text, confidence=other.confidence)
                for other in word.alternatives
            )
            hypotheses.append(replace(hypothesis, alternatives=others))
    return sort_hypotheses(hypotheses)
