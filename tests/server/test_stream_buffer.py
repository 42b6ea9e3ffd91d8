"""Stream buffer: audio and face tracks on one timeline."""

from __future__ import annotations

import numpy as np
import pytest

from gorggle_server.input_format import frames_to_samples
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.stream_buffer import StreamBuffer


def make_crop(number: int) -> np.ndarray:
    return np.full((96, 96), number, np.uint8)


def test_audio_is_addressed_by_frame_for_any_chunk_boundaries() -> None:
    buffer, audio = StreamBuffer(), np.arange(frames_to_samples(50), dtype=np.int16)
    for piece in np.array_split(audio, 7):
        buffer.add_audio(piece)
    assert buffer.audio_end == 50
    assert np.array_equal(
        buffer.get_audio(FrameSpan(10, 20)), audio[frames_to_samples(10) : frames_to_samples(20)]
    )
    beyond = buffer.get_audio(FrameSpan(45, 60))
    assert len(beyond) == frames_to_samples(15)
    assert not beyond[frames_to_samples(5) :].any()


def test_discarding_does_not_change_frame_numbers() -> None:
    buffer, audio = StreamBuffer(), np.arange(frames_to_samples(200), dtype=np.int16)
    buffer.add_audio(audio)
    buffer.add_audio_vad(np.linspace(0, 1, 200))
    track = buffer.begin_track(1, 0)
    for frame in range(200):
        track.add_crop(frame, make_crop(frame))
        track.speaking.append(frame / 200)
    before = (
        buffer.get_audio(FrameSpan(120, 140)),
        track.get_crops(FrameSpan(120, 140)),
        track.get_speaking(FrameSpan(120, 140)),
    )
    curve = buffer.get_audio_vad(FrameSpan(120, 140))
    buffer.discard_before(100)
    assert (track.start, track.end) == (100, 200)
    after = (
        buffer.get_audio(FrameSpan(120, 140)),
        track.get_crops(FrameSpan(120, 140)),
        track.get_speaking(FrameSpan(120, 140)),
    )
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert np.array_equal(buffer.get_audio_vad(FrameSpan(120, 140)), curve)


def test_an_ended_track_is_removed_when_its_frames_are_discarded() -> None:
    buffer = StreamBuffer()
    track = buffer.begin_track(1, 0)
    for frame in range(30):
        track.add_crop(frame, make_crop(0))
    track.end_at(25)
    assert track.end == 25
    buffer.discard_before(20)
    assert buffer.tracks
    buffer.discard_before(25)
    assert not buffer.tracks


def test_a_gap_in_a_track_is_filled_with_the_previous_crop() -> None:
    track = StreamBuffer().begin_track(1, 5)
    track.add_crop(5, make_crop(1))
    track.add_crop(9, make_crop(2))
    assert [int(c[0, 0]) for c in track.get_crops(FrameSpan(3, 12))] == [1, 1, 1, 1, 1, 1, 2, 2, 2]
    assert track.get_coverage(FrameSpan(0, 10)) == pytest.approx(0.5)


def test_a_crop_with_wrong_dimensions_raises_value_error() -> None:
    with pytest.raises(ValueError, match=r"\(96, 96\)"):
        StreamBuffer().begin_track(1, 0).add_crop(0, np.zeros((88, 88), np.uint8))
