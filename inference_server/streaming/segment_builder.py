"""Build segments from hypotheses: timestamps, output options. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gorggle_server.events import Hypothesis, Segment, Word
from gorggle_server.input_format import frames_to_seconds
from gorggle_server.streaming.endpointing import FrameSpan


def to_media_time(hypothesis: Hypothesis, span: FrameSpan) -> Hypothesis:
    """Shift word timestamps from the span to the media's clock."""
    shift_s = frames_to_seconds(span.start)
    words = tuple(
        Word(word.text, word.start_s + shift_s, word.end_s + shift_s, word.confidence)
        for word in hypothesis.words
    )
    return Hypothesis(hypothesis.text, hypothesis.confidence, words)


def create_segment(
    hypotheses: Sequence[Hypothesis], span: FrameSpan, *, word_timestamps: bool, **fields: Any
) -> Segment:
    """Return a segment of hypotheses on the media's clock, best first; ``fields`` are the segment's other fields."""
    start_s, end_s = frames_to_seconds(span.start), frames_to_seconds(span.end)
    if words := hypotheses[0].words:
        start_s, end_s = words[0].start_s, words[-1].end_s
    best, *alternatives = (
        hypothesis if word_timestamps else dataclasses.replace(hypothesis, words=())
        for hypothesis in hypotheses
    )
    return Segment(start_s=start_s, end_s=end_s, best=best, alternatives=tuple(alternatives), **fields)


def interpolate_word_timestamps(text: str, start_s: float, end_s: float) -> tuple[Word, ...]:
    """Distribute words evenly between the start of the first and the end of the last."""
    texts = text.split()
    step_s = max(0.0, end_s - start_s) / max(1, len(texts))
    return tuple(
        Word(word, start_s + number * step_s, start_s + (number + 1) * step_s, 0.0)
        for number, word in enumerate(texts)
    )


def shift_span(span: FrameSpan, frames: int) -> FrameSpan:
    """Return the span on a clock that started ``frames`` earlier."""
    return FrameSpan(span.start + frames, span.end + frames)


def find_earliest(frames: Sequence[int], default: int) -> int:
    """Return the earliest frame, at most ``default`` and at least 0."""
    return max(0, min([*frames, default]))
