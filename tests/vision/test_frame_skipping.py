"""Face tracking with frame skipping compared with tracking every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.frame_skipping import AnalyzedFrame, FrameSkipper
from tests.vision.synthetic_video import (
    MOUTH,
    Head,
    Pose,
    astronaut,
    face_detector,
    hopper,
    mouth_opening,
    paint_head,
    swaying_pose,
)

Frames = Sequence[NDArray[np.uint8]]
SIZE = (640, 480)
EYES_PX = 65.0


class CountingDetector:
    """The real detector; counts landmark fits."""

    def __init__(self) -> None:
        self.landmark_fits = 0
        self.detect, self.detect_near = face_detector().detect, face_detector().detect_near

    def predict_landmarks(self, frame, box, roll_deg=0.0):
        self.landmark_fits += 1
        return face_detector().predict_landmarks(frame, box, roll_deg)


def render_frames(
    length: int, pose: Callable[[int], Pose | None], head: Callable[[], Head] = astronaut
) -> tuple[Frames, Frames]:
    """Return frames and their true landmarks."""
    frames, truth = [], []
    for index in range(length):
        frame = np.full(SIZE[::-1], 90, np.uint8)
        placed = pose(index)
        truth.append(np.zeros((68, 2)) if placed is None else paint_head(head(), placed, frame, cut_out=True))
        frames.append(frame)
    return frames, truth


def speaking_pose(index: int) -> Pose:
    return swaying_pose(*SIZE, index, EYES_PX, opening=0.5 * mouth_opening(index))


def track_frames(
    frames: Frames, *, skip_frames: bool = True, detector: CountingDetector | None = None
) -> list[AnalyzedFrame]:
    tracker = FaceTracker(detector or face_detector())  # type: ignore[arg-type]
    skipper = FrameSkipper(tracker, skip_frames=skip_frames)
    results = [frame for index, pixels in enumerate(frames) for frame in skipper.push(pixels, index)]
    return results + skipper.flush()


def get_mouth_centres(results: Sequence[AnalyzedFrame]) -> NDArray[np.float64]:
    return np.array([frame.faces[0].landmarks[MOUTH].mean(axis=0) for frame in results])


def get_track_ids(results: Sequence[AnalyzedFrame]) -> list[set[int]]:
    return [{face.track_id for face in frame.faces} for frame in results]


@pytest.mark.parametrize("length", [59, 60])
def test_frames_are_returned_in_order_and_at_most_one_frame_late(length: int) -> None:
    frames, _ = render_frames(length, speaking_pose)
    skipper, results = FrameSkipper(FaceTracker(face_detector())), []
    for index, frame in enumerate(frames):
        results += skipper.push(frame, index)
        assert index + 1 - len(results) in {0, 1}
    results += skipper.flush()
    assert skipper.flush() == []
    assert [frame.index for frame in results] == list(range(length))
    assert all(result.pixels is frame for result, frame in zip(results, frames, strict=True))
    assert get_track_ids(results) == [{1}] * length


@pytest.mark.parametrize("head", [astronaut, hopper])
def test_frame_skipping_saves_landmark_fits_with_little_error(
    head: Callable[[], Head],
) -> None:
    frames, truth = render_frames(100, speaking_pose, head)
    all_frames, skipping = CountingDetector(), CountingDetector()
    mean_error = {}
    for detector, skip_frames in ((all_frames, False), (skipping, True)):
        results = track_frames(frames, skip_frames=skip_frames, detector=detector)
        errors = get_mouth_centres(results) - np.array([points[MOUTH].mean(axis=0) for points in truth])
        mean_error[skip_frames] = np.linalg.norm(errors, axis=1).mean() / EYES_PX
    assert skipping.landmark_fits < 0.8 * all_frames.landmark_fits
    assert mean_error[True] < mean_error[False] + 0.004


def test_without_skipping_every_frame_is_analyzed_without_delay() -> None:
    frames, _ = render_frames(30, speaking_pose)
    skipper, tracker = (
        FrameSkipper(FaceTracker(face_detector()), skip_frames=False),
        FaceTracker(face_detector()),
    )
    for index, frame in enumerate(frames):
        (result,) = skipper.push(frame, index)
        assert result.index == index
        assert result.pixels is frame
        (expected,) = tracker.update(frame, index)
        np.testing.assert_array_equal(result.faces[0].landmarks, expected.landmarks)
    assert skipper.flush() == []


def test_a_shaking_head_is_analyzed_on_every_frame() -> None:
    def shaking(index: int) -> Pose:
        return Pose(320 + 9 * np.sin(2 * np.pi * 5 * index / 25), 240, EYES_PX)

    frames, truth = render_frames(60, shaking)
    detector = CountingDetector()
    results = track_frames(frames, detector=detector)
    errors = np.linalg.norm(
        get_mouth_centres(results) - np.array([points[MOUTH].mean(axis=0) for points in truth]), axis=1
    )
    assert detector.landmark_fits > 60
    assert errors.mean() / EYES_PX < 0.03


def test_a_head_in_uniform_motion_is_analyzed_on_every_second_frame() -> None:
    frames, truth = render_frames(50, lambda index: Pose(140 + 7.2 * index, 240, EYES_PX))
    detector = CountingDetector()
    results = track_frames(frames, detector=detector)
    errors = np.linalg.norm(
        get_mouth_centres(results) - np.array([points[MOUTH].mean(axis=0) for points in truth]), axis=1
    )
    assert detector.landmark_fits < 50
    assert errors.mean() / EYES_PX < 0.03


def test_skipped_frames_are_interpolated_between_their_neighbours() -> None:
    frames, _ = render_frames(40, lambda index: Pose(200 + 3 * index, 240, EYES_PX))
    results = [frame.faces[0] for frame in track_frames(frames)]
    interpolated = [index for index, face in enumerate(results) if face.is_interpolated]
    assert len(interpolated) > 10
    for index in interpolated:
        mean = (results[index - 1].landmarks + results[index + 1].landmarks) / 2
        np.testing.assert_array_equal(results[index].landmarks, mean)
        assert results[index - 1].box.left < results[index].box.left < results[index + 1].box.left


@pytest.mark.parametrize("cut_frame", [30, 31])
def test_another_person_after_a_scene_cut_gets_a_new_id(cut_frame: int) -> None:
    frames, _ = render_frames(cut_frame, lambda _: Pose(320, 240, EYES_PX))
    others, _ = render_frames(30, lambda _: Pose(320, 240, EYES_PX), hopper)
    results = get_track_ids(track_frames([*frames, *others]))
    assert set().union(*results[:cut_frame]) == {1}
    assert set().union(*results[cut_frame + 1 :]) == {2}
    assert all(results[cut_frame + 1 :])


@pytest.mark.parametrize("end", [25, 26])
def test_a_disappearing_face_is_not_interpolated(end: int) -> None:
    frames, _ = render_frames(60, lambda index: Pose(320, 240, EYES_PX) if index < end else None)
    results = get_track_ids(track_frames(frames))
    assert all(results[:end])
    assert not any(results[end + 3 :])


def test_two_people_are_both_tracked_on_skipped_frames() -> None:
    frames = []
    for index in range(40):
        frame = np.full((480, 1280), 90, np.uint8)
        sway = 12 * np.sin(index / 9)
        paint_head(astronaut(), Pose(330 + sway, 240, 65), frame, cut_out=True)
        paint_head(hopper(), Pose(950 - sway, 240, 75), frame, cut_out=True)
        frames.append(frame)
    results = track_frames(frames)
    assert get_track_ids(results) == [{1, 2}] * 40
    skipped = [frame for frame in results if any(face.is_interpolated for face in frame.faces)]
    assert len(skipped) > 10
    for frame in skipped:
        assert [face.box.side for face in frame.faces] == sorted(
            (face.box.side for face in frame.faces), reverse=True
        )


def test_a_repeated_frame_is_analyzed_once() -> None:
    (frame,), _ = render_frames(1, lambda _: Pose(320, 240, EYES_PX))
    detector = CountingDetector()
    skipper, results = FrameSkipper(FaceTracker(detector)), []  # type: ignore[arg-type]
    for index in range(3):
        results += skipper.push(frame, index)
    fits = detector.landmark_fits
    for index in range(3, 60):
        results += skipper.push(frame, index)
    assert detector.landmark_fits == fits
    assert [frame.index for frame in results] == list(range(60))
    assert len({frame.faces[0].landmarks.tobytes() for frame in results}) == 1


def test_duplicated_frames_have_identical_landmarks() -> None:
    frames, _ = render_frames(30, speaking_pose)
    results = track_frames([frame for frame in frames for _ in range(2)])
    assert len(results) == 60
    for first, second in zip(results[::2], results[1::2], strict=True):
        np.testing.assert_array_equal(first.faces[0].landmarks, second.faces[0].landmarks)


def test_missing_frame_indices_are_not_interpolated() -> None:
    frames, _ = render_frames(60, speaking_pose)
    tracker = FaceTracker(face_detector())
    skipper = FrameSkipper(tracker)
    indices = [index for index in range(60) if index % 7]
    results = [frame for index in indices for frame in skipper.push(frames[index], index)] + skipper.flush()
    assert [frame.index for frame in results] == indices
    assert get_track_ids(results) == [{1}] * len(indices)
