"""Faces followed through video whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.vision.face_detector import COARSE_SIDE_PX, FINE_SIDE_PX
from gorggle_server.vision.face_tracker import MAX_LOST_FRAMES, FaceTracker, TrackedFace
from tests.vision.synthetic_video import MOUTH, Pose, astronaut, finder, hopper, painted, swaying, syllables
from training.clips import dialogue_scene
from training.face_rendering import Speaker
from training.speech_synthesis import Voice

Frames = list[NDArray[np.uint8]]
BACKDROP = np.random.default_rng(1).integers(80, 100, (480, 640)).astype(np.uint8)


class CountingFinder:
    """The real finder, with a record of what it was asked."""

    def __init__(self) -> None:
        self.detections: list[int] = []
        self.near = 0
        self.landmarked = 0

    def detect(self, frame, short_side_px=COARSE_SIDE_PX, min_score=0.0):
        self.detections.append(short_side_px)
        return finder().detect(frame, short_side_px, min_score)

    def detect_near(self, frame, box, min_score=0.0):
        self.near += 1
        return finder().detect_near(frame, box, min_score)

    def predict_landmarks(self, frame, box):
        self.landmarked += 1
        return finder().predict_landmarks(frame, box)


def track(frames: Iterable[NDArray[np.uint8]], **options: int) -> list[list[TrackedFace]]:
    tracker = FaceTracker(finder(), **options)
    return [tracker.update(frame, index) for index, frame in enumerate(frames)]


def video(length: int, pose: Callable[[int], Pose | None], head=astronaut, size=(640, 480)) -> Frames:
    frames = []
    for index in range(length):
        canvas = np.resize(BACKDROP, size[::-1]).copy()
        if (placed := pose(index)) is not None:
            painted(head(), placed, canvas, cut_out=True)
        frames.append(canvas)
    return frames


def ids(faces: list[list[TrackedFace]]) -> set[int]:
    return {face.track_id for seen in faces for face in seen}


@pytest.mark.parametrize("head", [astronaut, hopper])
@pytest.mark.parametrize(("size", "eyes_px"), [((640, 480), 65), ((1280, 720), 90), ((720, 1280), 80)])
def test_a_swaying_head_keeps_one_id_and_its_mouth_is_followed(head, size, eyes_px: float) -> None:
    errors = []
    tracker = FaceTracker(finder())
    for index in range(60):
        frame = np.zeros(size[::-1], np.uint8)
        truth = painted(head(), swaying(*size, index, eyes_px, opening=syllables(index)), frame)
        (face,) = tracker.update(frame, index)
        assert face.track_id == 1
        errors.append(
            np.linalg.norm(face.landmarks[MOUTH].mean(axis=0) - truth[MOUTH].mean(axis=0)) / eyes_px
        )
    assert np.mean(errors) < 0.02
    assert np.max(errors) < 0.06


def test_two_people_side_by_side_keep_two_ids() -> None:
    tracker = FaceTracker(finder())
    sides = {}
    for index in range(50):
        frame = np.full((720, 1280), 90, np.uint8)
        sway = 20 * np.sin(index / 9)
        painted(astronaut(), Pose(330 + sway, 360, 65, opening=syllables(index)), frame, cut_out=True)
        painted(hopper(), Pose(950 - sway, 360, 75), frame, cut_out=True)
        for face in tracker.update(frame, index):
            sides.setdefault(face.track_id, set()).add(face.box.centre[0] > 640)
    assert sorted(map(len, sides.values())) == [1, 1]
    assert {side for seen in sides.values() for side in seen} == {True, False}


def test_a_face_that_leaves_and_returns_within_two_seconds_keeps_its_id() -> None:
    faces = track(video(75, lambda index: None if 25 <= index < 55 else Pose(320, 240, 65)))
    assert all(not seen for seen in faces[28:55])
    assert all(faces[:24])
    assert all(faces[65:])
    assert ids(faces) == {1}


def test_a_face_that_returns_after_long_or_elsewhere_is_a_new_track() -> None:
    away = MAX_LOST_FRAMES + 45
    tracker = FaceTracker(finder())
    frames = video(25 + away + 25, lambda index: None if 25 <= index < 25 + away else Pose(320, 240, 65))
    faces = [tracker.update(frame, index) for index, frame in enumerate(frames)]
    assert ids(faces) == {1, 2}
    elsewhere = video(
        60, lambda index: Pose(160, 200, 55) if index < 25 else Pose(480, 260, 55) if index > 40 else None
    )
    assert ids(track(elsewhere)) == {1, 2}


def test_no_landmarks_are_invented_for_long_when_a_face_slides_out_of_the_image() -> None:
    faces = track(video(60, lambda index: Pose(320 + 14 * index, 240, 65)))
    assert all(faces[:14])
    assert not any(faces[45:])


def test_after_a_cut_another_person_in_the_same_place_has_another_id() -> None:
    frames = []
    for index in range(60):
        frame = np.zeros((480, 640), np.uint8)
        painted(astronaut() if index < 30 else hopper(), Pose(320, 240, 65), frame)
        frames.append(frame)
    faces = track(frames)
    assert ids(faces[:30]) == {1}
    assert ids(faces[31:]) == {2}
    assert all(faces[31:])


def test_a_image_without_a_face_costs_a_search_now_and_then() -> None:
    counting = CountingFinder()
    tracker = FaceTracker(counting)  # type: ignore[arg-type]
    noise = np.random.default_rng(5)
    for index in range(101):
        assert tracker.update(noise.integers(0, 255, (480, 640)).astype(np.uint8), index) == []
    assert counting.detections.count(FINE_SIDE_PX) == 3
    assert counting.detections.count(COARSE_SIDE_PX) == 8
    assert counting.landmarked == counting.near == 0


def test_a_followed_face_costs_one_landmark_fit_a_frame_and_few_looks_of_the_detector() -> None:
    counting = CountingFinder()
    tracker = FaceTracker(counting)  # type: ignore[arg-type]
    for index in range(100):
        frame = np.zeros((480, 640), np.uint8)
        painted(astronaut(), swaying(640, 480, index, 65), frame)
        tracker.update(frame, index)
    assert len(counting.detections) == 10
    assert counting.near <= 2
    assert counting.landmarked <= 150


def test_a_still_image_is_looked_at_once() -> None:
    counting = CountingFinder()
    tracker = FaceTracker(counting)  # type: ignore[arg-type]
    (frame,) = video(1, lambda _: Pose(320, 240, 65))
    first = tracker.update(frame, 0)
    asked = len(counting.detections), counting.landmarked
    later = [tracker.update(frame, index) for index in range(1, 200)]
    assert (len(counting.detections), counting.landmarked) == asked
    assert all(np.array_equal(seen[0].landmarks, first[0].landmarks) for seen in later)


def test_of_more_faces_than_places_the_largest_is_followed() -> None:
    def frame_of(index: int) -> NDArray[np.uint8]:
        frame = np.full((480, 1280), 90, np.uint8)
        painted(astronaut(), Pose(300 + index % 3, 240, 50), frame, cut_out=True)
        painted(hopper(), Pose(900, 240, 80), frame, cut_out=True)
        return frame

    tracker = FaceTracker(finder(), max_faces=1)
    faces = [tracker.update(frame_of(index), index) for index in range(12)]
    assert all(len(seen) == 1 and seen[0].box.centre[0] > 640 for seen in faces)
    assert tracker.faces_dropped == 1


def test_a_face_is_replaced_by_one_that_is_1_5_times_as_large() -> None:
    tracker = FaceTracker(finder(), max_faces=1)
    last: list[TrackedFace] = []
    for index in range(75):
        frame = np.full((480, 1280), 90, np.uint8)
        painted(astronaut(), Pose(300, 240, 45), frame, cut_out=True)
        if index > 20:
            painted(hopper(), Pose(900, 240, 85), frame, cut_out=True)
        last = tracker.update(frame, index)
        assert len(last) <= 1
    assert last[0].box.centre[0] > 640
    assert last[0].track_id == 2


def test_a_jump_of_the_face_is_caught_by_the_detector() -> None:
    frames = video(40, lambda index: Pose(250 if index < 20 else 390, 240, 65))
    faces = track(frames)
    assert all(faces[31:])
    assert faces[-1][0].box.centre[0] > 340


def test_frames_of_another_size_do_no_harm() -> None:
    tracker = FaceTracker(finder())
    for index, frame in enumerate(video(5, lambda _: Pose(320, 240, 65))):
        tracker.update(frame, index)
    for index in range(5, 40):
        assert len(tracker.update(np.zeros((120, 160), np.uint8), index)) <= 1
    assert tracker.update(np.zeros((120, 160), np.uint8), 40) == []


@pytest.mark.parametrize("run", [1, 2])
def test_a_speaker_of_even_dark_skin_stays_one_person(run: int) -> None:
    """Little but the mouth and the whites of the eyes stands out in such a face, and both move."""
    speaker, sentence = Speaker.from_seed(2_000_004), "place green by x two soon"
    rng = np.random.default_rng(run)
    scene = dialogue_scene([speaker], [Voice()], [(0, sentence)], 0.6, (640, 480), rng)
    faces = track([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in scene.frames])
    assert ids(faces) == {1}
