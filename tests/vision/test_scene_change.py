"""Cuts are detected; motion, camera shake and changes of light are not taken for cuts."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic_video import add_camera_shake, clips
from gorggle_server.vision.scene_change import SceneChangeDetector
from tests.vision.synthetic_video import astronaut, hopper, paint_head, swaying_pose

SIZE = (640, 480)


def paint_frame(head, index: int, backdrop: int = 90) -> NDArray[np.uint8]:
    frame = np.full(SIZE[::-1], backdrop, np.uint8)
    paint_head(head(), swaying_pose(*SIZE, index, 60), frame, cut_out=True)
    return frame


def find_changes(frames) -> list[int]:
    detector = SceneChangeDetector()
    return [index for index, frame in enumerate(frames) if detector.push(frame)]


def test_cuts_are_found_at_their_first_frames() -> None:
    shots = ((astronaut, 90), (hopper, 150), (astronaut, 40))
    frames = [paint_frame(head, index, backdrop) for head, backdrop in shots for index in range(10)]
    assert find_changes(frames) == [10, 20]


def test_a_moving_head_and_a_slow_change_of_light_are_no_cuts() -> None:
    frames = [np.clip(paint_frame(astronaut, i) * (1 + 0.02 * i), 0, 255).astype(np.uint8) for i in range(40)]
    assert not find_changes(frames)


def test_a_shaking_camera_makes_no_cuts_after_its_first_frames() -> None:
    for name, frames in clips().items():
        shaken = itertools.islice(add_camera_shake(frames()), 50)
        changes = find_changes(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)) for frame in shaken)
        assert all(index < 5 for index in changes), name


def test_another_frame_size_is_a_cut() -> None:
    assert find_changes([np.zeros((480, 640), np.uint8), np.zeros((240, 640), np.uint8)]) == []
    assert find_changes([np.zeros((480, 640), np.uint8), np.zeros((250, 650), np.uint8)]) == [1]
