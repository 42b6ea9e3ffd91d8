"""Build segments from hypotheses: timestamps, output options. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gorggle_server.events import Hypothesis, Segment, Word, WordSource
from gorggle_server.input_format import frames_to_seconds
from gorggle_server.recognition_options import Modality
from gorggle_server.streaming.endpointing import FrameSpan

_SOURCES = {
    Modality.AUDIO_VISUAL: WordSource.BOTH,
    Modality.VIDEO_ONLY: WordSource.LIPS,
    Modality.AUDIO_ONLY: WordSource.AUDIO,
}


def to_media_time(hypothesis: Hypothesis, span: FrameSpan) -> Hypothesis:
    """Shift word timestamps from the span to the media's clock."""
    shift_s = frames_to_seconds(span.start)
    words = tuple(
        dataclasses.replace(word, start_s=word.start_s + shift_s, end_s=word.end_s + shift_s)
        for word in hypothesis.words
    )
    return dataclasses.replace(hypothesis, words=words)


def create_segment(
    hypotheses: Sequence[Hypothesis],
    span: FrameSpan,
    *,
    word_timestamps: bool,
    modality: Modality,
    **fields: Any,
) -> Segment:
    """Return a segment of hypotheses on the media's clock, best first; ``fields`` are the segment's other fields."""
    start_s, end_s = frames_to_seconds(span.start), frames_to_seconds(span.end)
    if words := hypotheses[0].words:
        start_s, end_s = words[0].start_s, words[-1].end_s
    best, *alternatives = (
        dataclasses.replace(
            hypothesis, words=_add_source(hypothesis.words, modality) if word_timestamps else ()
        )
        for hypothesis in hypotheses
    )
    return Segment(
        start_s=start_s,
        end_s=end_s,
        best=best,
        alternatives=tuple(alternatives),
        modality=modality,
        **fields,
    )


def _add_source(words: Sequence[Word], modality: Modality) -> tuple[Word, ...]:
    source = _SOURCES[modality]
    return tuple(word if word.source else dataclasses.replace(word, source=source) for word in words)


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
