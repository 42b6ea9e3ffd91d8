"""From what the device read in a window to what a stream says: readings placed in time, segments. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gorggle_server.inference.recognizer import seconds_of
from gorggle_server.streaming.endpointing import Stretch
from gorggle_server.types import Activity, ActivityKind, Reading, Word


def placed(reading: Reading, stretch: Stretch) -> Reading:
    """A reading with its words' times moved from the window's clock to the media's."""
    shift_s = seconds_of(stretch.start)
    words = tuple(
        Word(word.text, word.start_s + shift_s, word.end_s + shift_s, word.confidence)
        for word in reading.words
    )
    return Reading(reading.text, reading.confidence, words)


def span(reading: Reading, stretch: Stretch) -> tuple[float, float]:
    """When the words begin and end; the whole stretch where their times are not known."""
    if not reading.words:
        return seconds_of(stretch.start), seconds_of(stretch.end)
    return reading.words[0].start_s, reading.words[-1].end_s


def shown(reading: Reading, *, word_times: bool) -> Reading:
    """A reading as the caller asked for it."""
    return reading if word_times else dataclasses.replace(reading, words=())


def spread(text: str, start_s: float, end_s: float) -> tuple[Word, ...]:
    """Words of which it is only known when the first begins and the last ends."""
    texts = text.split()
    step_s = max(0.0, end_s - start_s) / max(1, len(texts))
    return tuple(
        Word(word, start_s + number * step_s, start_s + (number + 1) * step_s, 0.0)
        for number, word in enumerate(texts)
    )


def speech_begins(stretch: Stretch, margin_frames: int, speaker_id: str) -> Activity:
    """Speech begins where a stretch does, but for its margin."""
    begin = min(stretch.start + margin_frames, stretch.end)
    return Activity(ActivityKind.SPEECH_BEGIN, seconds_of(begin), speaker_id)


def speech_ends(stretch: Stretch, margin_frames: int, speaker_id: str) -> Activity:
    """Speech ends where a stretch does, but for its margin."""
    end = max(stretch.start, stretch.end - margin_frames)
    return Activity(ActivityKind.SPEECH_END, seconds_of(end), speaker_id)


def moved(stretch: Stretch, frames: int) -> Stretch:
    """The same stretch on a clock that started ``frames`` earlier."""
    return Stretch(stretch.start + frames, stretch.end + frames)


def earliest(frames: Sequence[int], otherwise: int) -> int:
    """The first of some frames, or a frame that comes before all of them."""
    return max(0, min([*frames, otherwise]))
