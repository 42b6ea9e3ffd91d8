"""Face tracking in synthetic video with known landmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.vision.face_detector import COARSE_SIDE_PX, MIN_SCORE, FaceDetector
from gorggle_server.vision.face_search import SEARCH_ROLL_DEG
from gorggle_server.vision.face_tracker import MAX_CANDIDATES, MAX_LOST_FRAMES, FaceTracker, TrackedFace
from gorggle_server.vision.landmark_model import LandmarkModelName
from gorggle_training.clips import dialogue_scene
from gorggle_training.face_rendering import Speaker
from gorggle_training.speech_synthesis import Voice
from tests.vision.synthetic_video import (
    MOUTH,
    Pose,
    astronaut,
    face_detector,
    hopper,
    mouth_opening,
    paint_head,
    swaying_pose,
)

Frames = list[NDArray[np.uint8]]
BACKDROP = np.random.default_rng(1).integers(80, 100, (480, 640)).astype(np.uint8)


class CountingDetector:
    """The real detector; counts its calls."""

    def __init__(self) -> None:
        self.detections: list[tuple[int, float]] = []
        self.near_detections = 0
        self.landmark_fits = 0

    def detect(self, frame, long_side_px=COARSE_SIDE_PX, min_score=MIN_SCORE, roll_deg=0.0):
        self.detections.append((long_side_px, roll_deg))
        return face_detector().detect(frame, long_side_px, min_score, roll_deg)

    def detect_near(self, frame, box, min_score=MIN_SCORE, roll_deg=0.0):
        self.near_detections += 1
        return face_detector().detect_near(frame, box, min_score, roll_deg)

    def predict_landmarks(self, frame, box, roll_deg=0.0):
        self.landmark_fits += 1
        return face_detector().predict_landmarks(frame, box, roll_deg)


def track_faces(detector: FaceDetector, frames: Iterable[NDArray[np.uint8]]) -> list[list[TrackedFace]]:
    tracker = FaceTracker(detector)
    return [tracker.update(frame, index) for index, frame in enumerate(frames)]


def render_video(length: int, pose: Callable[[int], Pose | None], head=astronaut, size=(640, 480)) -> Frames:
    frames = []
    for index in range(length):
        canvas = np.resize(BACKDROP, size[::-1]).copy()
        if (placed := pose(index)) is not None:
            paint_head(head(), placed, canvas, cut_out=True)
        frames.append(canvas)
    return frames


def get_track_ids(faces: list[list[TrackedFace]]) -> set[int]:
    return {face.track_id for frame_faces in faces for face in frame_faces}


@pytest.mark.parametrize("head", [astronaut, hopper])
@pytest.mark.parametrize(("size", "eyes_px"), [((640, 480), 65), ((1280, 720), 90), ((720, 1280), 80)])
def test_a_moving_head_keeps_its_id_and_accurate_mouth_landmarks(
    landmark_model: LandmarkModelName, detector: FaceDetector, head, size, eyes_px: float
) -> None:
    errors = []
    tracker = FaceTracker(detector)
    for index in range(60):
        frame = np.zeros(size[::-1], np.uint8)
        truth = paint_head(head(), swaying_pose(*size, index, eyes_px, opening=mouth_opening(index)), frame)
        (face,) = tracker.update(frame, index)
        assert face.track_id == 1
        errors.append(
            np.linalg.norm(face.landmarks[MOUTH].mean(axis=0) - truth[MOUTH].mean(axis=0)) / eyes_px
        )
    assert (
        np.mean(errors) < {LandmarkModelName.DLIB: 0.02, LandmarkModelName.MEDIAPIPE: 0.025}[landmark_model]
    )
    assert np.max(errors) < 0.06


def test_a_head_that_rolls_by_45_degrees_is_tracked_on_every_frame(detector: FaceDetector) -> None:
    errors = []
    tracker = FaceTracker(detector)
    for index in range(50):
        frame = np.zeros((480, 640), np.uint8)
        truth = paint_head(astronaut(), Pose(320, 240, 40, turn=45 * np.sin(index / 8)), frame, cut_out=True)
        (face,) = tracker.update(frame, index)
        assert face.track_id == 1
        errors.append(np.linalg.norm(face.landmarks[MOUTH].mean(axis=0) - truth[MOUTH].mean(axis=0)) / 40)
    assert max(errors) < 0.06


def test_two_people_keep_separate_ids(detector: FaceDetector) -> None:
    tracker = FaceTracker(detector)
    sides = {}
    for index in range(50):
        frame = np.full((720, 1280), 90, np.uint8)
        sway = 20 * np.sin(index / 9)
        paint_head(astronaut(), Pose(330 + sway, 360, 65, opening=mouth_opening(index)), frame, cut_out=True)
        paint_head(hopper(), Pose(950 - sway, 360, 75), frame, cut_out=True)
        for face in tracker.update(frame, index):
            sides.setdefault(face.track_id, set()).add(face.box.centre[0] > 640)
    assert sorted(map(len, sides.values())) == [1, 1]
    assert {side for seen in sides.values() for side in seen} == {True, False}


def test_a_face_that_returns_within_two_seconds_keeps_its_id(detector: FaceDetector) -> None:
    faces = track_faces(
        detector, render_video(75, lambda index: None if 25 <= index < 55 else Pose(320, 240, 65))
    )
    assert all(not frame_faces for frame_faces in faces[28:55])
    assert all(faces[:24])
    assert all(faces[65:])
    assert get_track_ids(faces) == {1}


def test_a_face_that_returns_later_or_elsewhere_gets_a_new_id(detector: FaceDetector) -> None:
    absent_frames = MAX_LOST_FRAMES + 45
    tracker = FaceTracker(detector)
    frames = render_video(
        25 + absent_frames + 25,
        lambda index: None if 25 <= index < 25 + absent_frames else Pose(320, 240, 65),
    )
    faces = [tracker.update(frame, index) for index, frame in enumerate(frames)]
    assert get_track_ids(faces) == {1, 2}
    elsewhere = render_video(
        60, lambda index: Pose(160, 200, 55) if index < 25 else Pose(480, 260, 55) if index > 40 else None
    )
    assert get_track_ids(track_faces(detector, elsewhere)) == {1, 2}


def test_tracking_stops_when_a_face_leaves_the_frame(detector: FaceDetector) -> None:
    faces = track_faces(detector, render_video(60, lambda index: Pose(320 + 14 * index, 240, 65)))
    assert all(faces[:14])
    assert not any(faces[45:])


def test_another_person_after_a_scene_cut_gets_a_new_id(detector: FaceDetector) -> None:
    frames = []
    for index in range(60):
        frame = np.zeros((480, 640), np.uint8)
        paint_head(astronaut() if index < 30 else hopper(), Pose(320, 240, 65), frame)
        frames.append(frame)
    faces = track_faces(detector, frames)
    assert get_track_ids(faces[:30]) == {1}
    assert get_track_ids(faces[31:]) == {2}
    assert all(faces[31:])


def test_frames_without_a_face_are_searched_at_intervals() -> None:
    detector = CountingDetector()
    tracker = FaceTracker(detector)  # type: ignore[arg-type]
    noise = np.random.default_rng(5)
    for index in range(101):
        assert tracker.update(noise.integers(0, 255, (480, 640)).astype(np.uint8), index) == []
    fine, coarse = (
        [roll for side, roll in detector.detections if (side == COARSE_SIDE_PX) == is_coarse]
        for is_coarse in (False, True)
    )
    assert fine == [0, SEARCH_ROLL_DEG, -SEARCH_ROLL_DEG] * 3
    assert Counter(coarse) == {0: 3 + 9, SEARCH_ROLL_DEG: 3 + 5, -SEARCH_ROLL_DEG: 3 + 4}
    assert detector.landmark_fits == detector.near_detections == 0


def test_a_tracked_face_needs_one_landmark_fit_per_frame_and_few_detections() -> None:
    detector = CountingDetector()
    tracker = FaceTracker(detector)  # type: ignore[arg-type]
    for index in range(100):
        frame = np.zeros((480, 640), np.uint8)
        paint_head(astronaut(), swaying_pose(640, 480, index, 65), frame)
        tracker.update(frame, index)
    assert len(detector.detections) == 12
    assert detector.near_detections <= 6
    assert detector.landmark_fits <= 150


def test_a_repeated_frame_is_analyzed_once() -> None:
    detector = CountingDetector()
    tracker = FaceTracker(detector)  # type: ignore[arg-type]
    (frame,) = render_video(1, lambda _: Pose(320, 240, 65))
    first = tracker.update(frame, 0)
    calls = len(detector.detections), detector.landmark_fits
    later = [tracker.update(frame, index) for index in range(1, 200)]
    assert (len(detector.detections), detector.landmark_fits) == calls
    assert all(np.array_equal(seen[0].landmarks, first[0].landmarks) for seen in later)


def test_the_largest_faces_are_tracked_if_there_are_more_than_max_faces(detector: FaceDetector) -> None:
    def render_frame(index: int) -> NDArray[np.uint8]:
        frame = np.full((480, 1280), 90, np.uint8)
        paint_head(astronaut(), Pose(300 + index % 3, 240, 50), frame, cut_out=True)
        paint_head(hopper(), Pose(900, 240, 80), frame, cut_out=True)
        return frame

    tracker = FaceTracker(detector, max_faces=1)
    faces = [tracker.update(render_frame(index), index) for index in range(12)]
    assert all(len(frame_faces) == 1 and frame_faces[0].box.centre[0] > 640 for frame_faces in faces)
    assert tracker.faces_dropped == 1


def test_a_crowd_takes_a_bounded_number_of_fits() -> None:
    frame = np.full((1080, 1920), 90, np.uint8)
    places = [(x, y) for y in range(100, 1080, 220) for x in range(100, 1920, 215)]
    for x, y in places:
        tile = np.full((220, 214), 90, np.uint8)
        paint_head(astronaut(), Pose(107, 110, 30), tile, cut_out=True)
        frame[y - 100 : y + 120, x - 100 : x + 114] = tile[: 1080 - y + 100, : 1920 - x + 100]
    detector = CountingDetector()
    tracker = FaceTracker(detector, max_faces=2)  # type: ignore[arg-type]
    assert len(tracker.update(frame, 0)) == 2
    assert 0 < tracker.faces_dropped < len(places)
    assert detector.near_detections <= MAX_CANDIDATES
    assert detector.landmark_fits <= 2 * 6


def test_a_face_is_replaced_by_one_1_5_times_as_large(detector: FaceDetector) -> None:
    tracker = FaceTracker(detector, max_faces=1)
    last: list[TrackedFace] = []
    for index in range(75):
        frame = np.full((480, 1280), 90, np.uint8)
        paint_head(astronaut(), Pose(300, 240, 45), frame, cut_out=True)
        if index > 20:
            paint_head(hopper(), Pose(900, 240, 85), frame, cut_out=True)
        last = tracker.update(frame, index)
        assert len(last) <= 1
    assert last[0].box.centre[0] > 640
    assert last[0].track_id == 2


def test_a_face_is_found_again_after_a_jump(detector: FaceDetector) -> None:
    frames = render_video(40, lambda index: Pose(250 if index < 20 else 390, 240, 65))
    faces = track_faces(detector, frames)
    assert all(faces[31:])
    assert faces[-1][0].box.centre[0] > 340


def test_a_frame_size_change_is_handled(detector: FaceDetector) -> None:
    tracker = FaceTracker(detector)
    for index, frame in enumerate(render_video(5, lambda _: Pose(320, 240, 65))):
        tracker.update(frame, index)
    for index in range(5, 40):
        assert len(tracker.update(np.zeros((120, 160), np.uint8), index)) <= 1
    assert tracker.update(np.zeros((120, 160), np.uint8), 40) == []


@pytest.mark.parametrize("run", [1, 2])
def test_a_dark_skinned_speaker_keeps_one_id(detector: FaceDetector, run: int) -> None:
    """Low-contrast rendering: only the mouth and the whites of the eyes stand out, and both move."""
    speaker, sentence = Speaker.from_seed(2_000_004), "place green by x two soon"
    rng = np.random.default_rng(run)
    scene = dialogue_scene([speaker], [Voice()], [(0, sentence)], 0.6, (640, 480), rng)
    faces = track_faces(detector, [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in scene.frames])
    assert get_track_ids(faces) == {1}
