"""Everybody's mouth, frame by frame: all crops once and in order, and tracks that end where a face was last seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.vision.face_detector import BoundingBox
from gorggle_server.vision.face_tracker import TrackedFace
from gorggle_server.vision.frame_skipping import AnalyzedFrame
from gorggle_server.vision.mouth_cropper import MAX_ABSENCE_FRAMES
from gorggle_server.vision.mouth_tracker import (
    FACE_BOX_INTERVAL_FRAMES,
    FrameResult,
    MouthTracker,
    MouthUpdate,
    _MouthTrack,
)
from tests.vision.synthetic_video import Pose, astronaut, finder, hopper, painted, swaying, syllables

SIZE = (640, 480)


def speaking(frame: int) -> NDArray[np.uint8]:
    """One head that moves and speaks."""
    image = np.zeros(SIZE[::-1], np.uint8)
    painted(astronaut(), swaying(*SIZE, frame, 62, opening=syllables(frame)), image)
    return image


def no_face(frame: int) -> NDArray[np.uint8]:
    """Noise, so that no frame is the one before."""
    return np.random.default_rng(frame).integers(0, 60, SIZE[::-1], np.uint8)


def two(_frame: int) -> NDArray[np.uint8]:
    """Two heads side by side."""
    halves = []
    for head in (astronaut(), hopper()):
        half = np.zeros(SIZE[::-1], np.uint8)
        painted(head, Pose(SIZE[0] / 2, SIZE[1] / 2, 62), half)
        halves.append(half)
    return np.hstack(halves)


def sights_of(tracker: MouthTracker, images: Iterable[NDArray[np.uint8]]) -> list[FrameResult]:
    sights = [sight for index, image in enumerate(images) for sight in tracker.push(image, index)]
    return [*sights, *tracker.flush()]


def news_of(sights: list[FrameResult], person: int) -> list[MouthUpdate]:
    return [mouth for sight in sights for mouth in sight.mouths if mouth.person == person]


@pytest.mark.parametrize("waits", [False, True])
def test_every_frame_has_one_result_and_one_crop(waits: bool) -> None:
    tracker = MouthTracker(finder(), skip_frames=waits)
    sights = sights_of(tracker, map(speaking, range(40)))
    assert [sight.index for sight in sights] == list(range(41))
    assert [sight.faces for sight in sights] == [1] * 40 + [0]
    assert [sight.is_last for sight in sights] == [False] * 40 + [True]
    news = news_of(sights, 1)
    crops = [crop for mouth in news for crop in mouth.crops]
    assert [crop.frame_index for crop in crops] == list(range(40))
    assert all(crop.pixels.shape == (96, 96) for crop in crops)
    assert sum(len(mouth.speaking) for mouth in news) == 40
    assert [mouth.has_ended for mouth in news] == [False] * 40 + [True]
    placed = [sight.index for sight in sights for mouth in sight.mouths if mouth.box is not None]
    assert placed == list(range(0, 40, FACE_BOX_INTERVAL_FRAMES))
    (place, *_) = [mouth.box for mouth in news if mouth.box is not None]
    assert 0 < place.left < place.left + place.width < 1
    assert 0 < place.top < place.top + place.height < 1


def test_what_cannot_wait_gets_a_crop_of_each_frame_at_once() -> None:
    tracker = MouthTracker(finder(), skip_frames=False, previews=True)
    for index in range(5):
        (sight,) = tracker.push(speaking(index), index)
        assert sight.index == index
        (mouth,) = sight.mouths
        assert mouth.preview is not None
        assert mouth.preview.shape == (96, 96)


def test_a_face_that_stays_away_ends_its_track_where_it_was_last_seen() -> None:
    tracker = MouthTracker(finder(), skip_frames=False)
    images = [*map(speaking, range(20)), *map(no_face, range(MAX_ABSENCE_FRAMES + 20))]
    sights = sights_of(tracker, images)
    news = news_of(sights, 1)
    seen = [sight.index for sight in sights for mouth in sight.mouths if mouth.is_seen]
    last_seen = seen[-1]
    (left,) = [sight.index for sight in sights for mouth in sight.mouths if mouth.has_ended]
    assert left == last_seen + MAX_ABSENCE_FRAMES + 1
    assert [crop.frame_index for mouth in news for crop in mouth.crops] == list(range(last_seen + 1))
    assert sum(len(mouth.speaking) for mouth in news) == left + 1
    assert sights[-1].is_last
    assert sights[-1].mouths == []


def test_more_faces_than_the_maximum_are_reported() -> None:
    alone = sights_of(MouthTracker(finder(), max_faces=1), map(two, range(3)))
    assert {mouth.person for sight in alone for mouth in sight.mouths} == {1}
    assert alone[0].is_crowded
    both = sights_of(MouthTracker(finder(), max_faces=2), map(two, range(3)))
    assert {mouth.person for sight in both for mouth in sight.mouths} == {1, 2}
    assert not any(sight.is_crowded for sight in both)


def test_landmarks_that_put_a_face_beyond_all_bounds_tell_no_place() -> None:
    landmarks = finder().predict_landmarks(speaking(0), BoundingBox(200, 100, 400, 300))
    frame = AnalyzedFrame(0, speaking(0), [])
    for side, is_reported in ((200.0, True), (1e9, False), (float("nan"), False)):
        face = TrackedFace(1, BoundingBox.from_centre((300.0, 200.0), side), landmarks)
        assert (_MouthTrack(1, 0, previews=False).update(frame, face).box is not None) == is_reported


def test_a_video_without_faces_has_sights_without_mouths() -> None:
    sights = sights_of(MouthTracker(finder()), map(no_face, range(12)))
    assert [sight.index for sight in sights] == list(range(13))
    assert not any(sight.mouths or sight.faces for sight in sights)
