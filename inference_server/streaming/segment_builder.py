"""From what the device read in a window to what a stream says: readings placed in time, segments. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.timebase import frames_to_seconds
from gorggle_server.types import Activity, ActivityKind, Hypothesis, Word


def to_media_time(hypothesis: Hypothesis, span: FrameSpan) -> Hypothesis:
    """A reading with its words' times moved from the window's clock to the media's."""
    shift_s = frames_to_seconds(span.start)
    words = tuple(
        Word(word.text, word.start_s + shift_s, word.end_s + shift_s, word.confidence)
        for word in hypothesis.words
    )
    return Hypothesis(hypothesis.text, hypothesis.confidence, words)


def get_time_bounds(hypothesis: Hypothesis, span: FrameSpan) -> tuple[float, float]:
    """When the words begin and end; the whole stretch where their times are not known."""
    if not hypothesis.words:
        return frames_to_seconds(span.start), frames_to_seconds(span.end)
    return hypothesis.words[0].start_s, hypothesis.words[-1].end_s


def apply_output_options(hypothesis: Hypothesis, *, word_timestamps: bool) -> Hypothesis:
    """A reading as the caller asked for it."""
    return hypothesis if word_timestamps else dataclasses.replace(hypothesis, words=())


def interpolate_word_timestamps(text: str, start_s: float, end_s: float) -> tuple[Word, ...]:
    """Words of which it is only known when the first begins and the last ends."""
    texts = text.split()
    step_s = max(0.0, end_s - start_s) / max(1, len(texts))
    return tuple(
        Word(word, start_s + number * step_s, start_s + (number + 1) * step_s, 0.0)
        for number, word in enumerate(texts)
    )


def create_speech_begin(span: FrameSpan, margin_frames: int, speaker_id: str) -> Activity:
    """Speech begins where a stretch does, but for its margin."""
    begin = min(span.start + margin_frames, span.end)
    return Activity(ActivityKind.SPEECH_BEGIN, frames_to_seconds(begin), speaker_id)


def create_speech_end(span: FrameSpan, margin_frames: int, speaker_id: str) -> Activity:
    """Speech ends where a stretch does, but for its margin."""
    end = max(span.start, span.end - margin_frames)
    return Activity(ActivityKind.SPEECH_END, frames_to_seconds(end), speaker_id)


def shift_span(span: FrameSpan, frames: int) -> FrameSpan:
    """The same stretch on a clock that started ``frames`` earlier."""
    return FrameSpan(span.start + frames, span.end + frames)


def find_earliest(frames: Sequence[int], default: int) -> int:
    """The first of some frames, or a frame that comes before all of them."""
    return max(0, min([*frames, default]))
