"""Mouth tracking: every crop is returned once and in order, and tracks end with the last detection of a face."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.face_geometry import BoundingBox
from gorggle_server.vision.face_tracker import TrackedFace
from gorggle_server.vision.frame_skipping import AnalyzedFrame
from gorggle_server.vision.landmark_model import LandmarkModelName
from gorggle_server.vision.mouth_cropper import MAX_ABSENCE_FRAMES
from gorggle_server.vision.mouth_tracker import (
    FACE_BOX_INTERVAL_FRAMES,
    FrameResult,
    MouthTracker,
    MouthUpdate,
    _MouthTrack,
)
from tests.vision.synthetic_video import (
    Pose,
    astronaut,
    face_detector,
    hopper,
    mouth_opening,
    paint_head,
    swaying_pose,
)

SIZE = (640, 480)


def speaking_head(frame: int) -> NDArray[np.uint8]:
    """Return a frame of a moving, speaking head."""
    image = np.zeros(SIZE[::-1], np.uint8)
    paint_head(astronaut(), swaying_pose(*SIZE, frame, 62, opening=mouth_opening(frame)), image)
    return image


def no_face(frame: int) -> NDArray[np.uint8]:
    """Return noise, so that successive frames differ."""
    return np.random.default_rng(frame).integers(0, 60, SIZE[::-1], np.uint8)


def two_heads(_frame: int) -> NDArray[np.uint8]:
    """Return a frame with two heads side by side."""
    halves = []
    for head in (astronaut(), hopper()):
        half = np.zeros(SIZE[::-1], np.uint8)
        paint_head(head, Pose(SIZE[0] / 2, SIZE[1] / 2, 62), half)
        halves.append(half)
    return np.hstack(halves)


def track_mouths(tracker: MouthTracker, images: Iterable[NDArray[np.uint8]]) -> list[FrameResult]:
    results = [result for index, image in enumerate(images) for result in tracker.push(image, index)]
    return [*results, *tracker.flush()]


def get_updates(results: list[FrameResult], person: int) -> list[MouthUpdate]:
    return [mouth for result in results for mouth in result.mouths if mouth.person == person]


@pytest.mark.parametrize("skip_frames", [False, True])
def test_every_frame_has_one_result_and_one_crop(detector: FaceDetector, skip_frames: bool) -> None:
    tracker = MouthTracker(detector, skip_frames=skip_frames)
    results = track_mouths(tracker, map(speaking_head, range(40)))
    assert [result.index for result in results] == list(range(41))
    assert [result.faces for result in results] == [1] * 40 + [0]
    assert [result.is_last for result in results] == [False] * 40 + [True]
    updates = get_updates(results, 1)
    crops = [crop for mouth in updates for crop in mouth.crops]
    assert [crop.frame_index for crop in crops] == list(range(40))
    assert all(crop.pixels.shape == (96, 96) for crop in crops)
    assert sum(len(mouth.speaking) for mouth in updates) == 40
    assert [mouth.has_ended for mouth in updates] == [False] * 40 + [True]
    box_frames = [result.index for result in results for mouth in result.mouths if mouth.box is not None]
    assert box_frames == list(range(0, 40, FACE_BOX_INTERVAL_FRAMES))
    (box, *_) = [mouth.box for mouth in updates if mouth.box is not None]
    assert 0 < box.left < box.left + box.width < 1
    assert 0 < box.top < box.top + box.height < 1


def test_previews_are_available_without_delay() -> None:
    tracker = MouthTracker(face_detector(), skip_frames=False, previews=True)
    for index in range(5):
        (result,) = tracker.push(speaking_head(index), index)
        assert result.index == index
        (mouth,) = result.mouths
        assert mouth.preview is not None
        assert mouth.preview.shape == (96, 96)


def test_an_absent_face_ends_its_track_at_the_last_detection(detector: FaceDetector) -> None:
    tracker = MouthTracker(detector, skip_frames=False)
    images = [*map(speaking_head, range(20)), *map(no_face, range(MAX_ABSENCE_FRAMES + 20))]
    results = track_mouths(tracker, images)
    updates = get_updates(results, 1)
    seen = [result.index for result in results for mouth in result.mouths if mouth.is_seen]
    last_seen = seen[-1]
    (end_frame,) = [result.index for result in results for mouth in result.mouths if mouth.has_ended]
    assert end_frame == last_seen + MAX_ABSENCE_FRAMES + 1
    assert [crop.frame_index for mouth in updates for crop in mouth.crops] == list(range(last_seen + 1))
    assert sum(len(mouth.speaking) for mouth in updates) == end_frame + 1
    assert results[-1].is_last
    assert results[-1].mouths == []


def test_more_faces_than_the_maximum_are_reported() -> None:
    one_face = track_mouths(MouthTracker(face_detector(), max_faces=1), map(two_heads, range(3)))
    assert {mouth.person for result in one_face for mouth in result.mouths} == {1}
    assert one_face[0].is_crowded
    both = track_mouths(MouthTracker(face_detector(), max_faces=2), map(two_heads, range(3)))
    assert {mouth.person for result in both for mouth in result.mouths} == {1, 2}
    assert not any(result.is_crowded for result in both)


def test_an_out_of_range_face_box_is_not_reported() -> None:
    landmarks = face_detector().predict_landmarks(speaking_head(0), BoundingBox(200, 100, 400, 300)).points
    frame = AnalyzedFrame(0, speaking_head(0), [])
    for side, is_reported in ((200.0, True), (1e9, False), (float("nan"), False)):
        face = TrackedFace(1, BoundingBox.from_centre((300.0, 200.0), side), landmarks)
        assert (
            _MouthTrack(1, 0, LandmarkModelName.DLIB, previews=False).update(frame, face).box is not None
        ) == is_reported


def test_video_without_faces_yields_results_without_mouths() -> None:
    results = track_mouths(MouthTracker(face_detector()), map(no_face, range(12)))
    assert [result.index for result in results] == list(range(13))
    assert not any(result.mouths or result.faces for result in results)
