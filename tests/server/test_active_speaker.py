"""Active speaker detection among several visible faces."""

from __future__ import annotations

import numpy as np

from gorggle_server.streaming.active_speaker import assign_turns
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.stream_buffer import FaceTrack

CROP = np.zeros((96, 96), np.uint8)


def make_track(track_id: int, speaking: list[float], start: int = 0) -> FaceTrack:
    return FaceTrack(track_id, track_id, start, [CROP] * len(speaking), speaking)


def test_the_face_with_the_moving_mouth_is_the_active_speaker() -> None:
    still, moving = make_track(1, [0.05] * 100), make_track(2, [0.9] * 100)
    (turn,) = assign_turns(FrameSpan(10, 90), [still, moving], np.ones(80, np.float32))
    assert turn.track is moving
    assert turn.span == FrameSpan(10, 90)


def test_speech_without_a_moving_mouth_has_no_visible_speaker() -> None:
    (turn,) = assign_turns(FrameSpan(0, 100), [make_track(1, [0.1] * 100)], np.ones(100, np.float32))
    assert turn.track is None


def test_speech_before_any_face_has_no_visible_speaker() -> None:
    (turn,) = assign_turns(FrameSpan(0, 100), [make_track(1, [0.9] * 20, start=90)], np.ones(100, np.float32))
    assert turn.track is None


def test_a_span_is_divided_where_the_speaker_changes() -> None:
    left = make_track(1, [0.9] * 60 + [0.05] * 60)
    right = make_track(2, [0.05] * 60 + [0.9] * 60)
    audio = np.ones(120, np.float32)
    audio[57] = 0.1  # the pause between the two turns
    first, second = assign_turns(FrameSpan(0, 120), [left, right], audio)
    assert (first.track, second.track) == (left, right)
    assert first.span == FrameSpan(0, 57)
    assert second.span == FrameSpan(57, 120)


def test_a_short_mouth_movement_of_a_listener_is_not_a_turn() -> None:
    speaker = make_track(1, [0.9] * 100)
    listener = make_track(2, [0.05] * 45 + [0.95] * 8 + [0.05] * 47)
    (turn,) = assign_turns(FrameSpan(0, 100), [speaker, listener], np.ones(100, np.float32))
    assert turn.track is speaker


def test_correlation_with_the_audio_decides_between_two_moving_mouths() -> None:
    unsynchronized, synchronized = make_track(1, [0.8] * 100), make_track(2, [0.8] * 100)
    (turn,) = assign_turns(
        FrameSpan(0, 100), [unsynchronized, synchronized], np.ones(100, np.float32), {1: 0.0, 2: 0.6}
    )
    assert turn.track is synchronized
