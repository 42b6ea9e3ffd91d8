"""Who speaks when several faces are seen."""

from __future__ import annotations

import numpy as np

from gorggle_server.streaming.active_speaker import assign_turns
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.stream_buffer import FaceTrack

CROP = np.zeros((96, 96), np.uint8)


def make_track(track_id: int, speaking: list[float], start: int = 0) -> FaceTrack:
    return FaceTrack(track_id, track_id, start, [CROP] * len(speaking), speaking)


def test_the_face_whose_mouth_moves_speaks() -> None:
    still, moving = make_track(1, [0.05] * 100), make_track(2, [0.9] * 100)
    (turn,) = assign_turns(FrameSpan(10, 90), [still, moving], np.ones(80, np.float32))
    assert turn.track is moving
    assert turn.span == FrameSpan(10, 90)


def test_a_voice_without_a_moving_mouth_belongs_to_nobody_in_the_picture() -> None:
    (turn,) = assign_turns(FrameSpan(0, 100), [make_track(1, [0.1] * 100)], np.ones(100, np.float32))
    assert turn.track is None


def test_a_voice_before_any_face_belongs_to_nobody_in_the_picture() -> None:
    (turn,) = assign_turns(FrameSpan(0, 100), [make_track(1, [0.9] * 20, start=90)], np.ones(100, np.float32))
    assert turn.track is None


def test_a_stretch_is_divided_where_the_word_passes_from_one_face_to_the_other() -> None:
    left = make_track(1, [0.9] * 60 + [0.05] * 60)
    right = make_track(2, [0.05] * 60 + [0.9] * 60)
    sound = np.ones(120, np.float32)
    sound[57] = 0.1  # the pause between the two
    first, second = assign_turns(FrameSpan(0, 120), [left, right], sound)
    assert (first.track, second.track) == (left, right)
    assert first.span == FrameSpan(0, 57)
    assert second.span == FrameSpan(57, 120)


def test_a_listener_who_smiles_for_a_moment_does_not_take_the_word() -> None:
    speaker = make_track(1, [0.9] * 100)
    listener = make_track(2, [0.05] * 45 + [0.95] * 8 + [0.05] * 47)
    (turn,) = assign_turns(FrameSpan(0, 100), [speaker, listener], np.ones(100, np.float32))
    assert turn.track is speaker


def test_agreement_with_the_sound_decides_between_two_moving_mouths() -> None:
    one, other = make_track(1, [0.8] * 100), make_track(2, [0.8] * 100)
    (turn,) = assign_turns(FrameSpan(0, 100), [one, other], np.ones(100, np.float32), {1: 0.0, 2: 0.6})
    assert turn.track is other
