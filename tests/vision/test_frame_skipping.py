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
    finder,
    hopper,
    painted,
    swaying,
    syllables,
)

Frames = Sequence[NDArray[np.uint8]]
SIZE = (640, 480)
EYES_PX = 65.0


class CountingFinder:
    """The real finder; counts how often landmarks were found."""

    def __init__(self) -> None:
        self.landmarked = 0
        self.detect, self.detect_near = finder().detect, finder().detect_near

    def predict_landmarks(self, frame, box):
        self.landmarked += 1
        return finder().predict_landmarks(frame, box)


def filmed(
    length: int, pose: Callable[[int], Pose | None], head: Callable[[], Head] = astronaut
) -> tuple[Frames, Frames]:
    """Frames, and where the landmarks truly are on them."""
    frames, truth = [], []
    for index in range(length):
        frame = np.full(SIZE[::-1], 90, np.uint8)
        placed = pose(index)
        truth.append(np.zeros((68, 2)) if placed is None else painted(head(), placed, frame, cut_out=True))
        frames.append(frame)
    return frames, truth


def speaking(index: int) -> Pose:
    return swaying(*SIZE, index, EYES_PX, opening=0.5 * syllables(index))


def followed(
    frames: Frames, *, waits: bool = True, counting: CountingFinder | None = None
) -> list[AnalyzedFrame]:
    tracker = FaceTracker(counting or finder())  # type: ignore[arg-type]
    strides = FrameSkipper(tracker, skip_frames=waits)
    seen = [frame for index, pixels in enumerate(frames) for frame in strides.push(pixels, index)]
    return seen + strides.flush()


def mouths(seen: Sequence[AnalyzedFrame]) -> NDArray[np.float64]:
    return np.array([frame.faces[0].landmarks[MOUTH].mean(axis=0) for frame in seen])


def ids(seen: Sequence[AnalyzedFrame]) -> list[set[int]]:
    return [{face.track_id for face in frame.faces} for frame in seen]


@pytest.mark.parametrize("length", [59, 60])
def test_every_frame_comes_once_and_in_order_and_at_most_one_late(length: int) -> None:
    frames, _ = filmed(length, speaking)
    strides, given = FrameSkipper(FaceTracker(finder())), []
    for index, frame in enumerate(frames):
        given += strides.push(frame, index)
        assert index + 1 - len(given) in {0, 1}
    given += strides.flush()
    assert strides.flush() == []
    assert [frame.index for frame in given] == list(range(length))
    assert all(seen.pixels is frame for seen, frame in zip(given, frames, strict=True))
    assert ids(given) == [{1}] * length


@pytest.mark.parametrize("head", [astronaut, hopper])
def test_a_speaker_costs_little_more_than_half_the_landmarks_and_the_mouth_stays_where_it_is(
    head: Callable[[], Head],
) -> None:
    frames, truth = filmed(100, speaking, head)
    each, sparing = CountingFinder(), CountingFinder()
    apart = {}
    for counting, waits in ((each, False), (sparing, True)):
        seen = followed(frames, waits=waits, counting=counting)
        off = mouths(seen) - np.array([points[MOUTH].mean(axis=0) for points in truth])
        apart[waits] = np.linalg.norm(off, axis=1).mean() / EYES_PX
    assert sparing.landmarked < 0.8 * each.landmarked
    assert apart[True] < apart[False] + 0.004


def test_what_cannot_wait_is_followed_as_it_comes() -> None:
    frames, _ = filmed(30, speaking)
    strides, alone = FrameSkipper(FaceTracker(finder()), skip_frames=False), FaceTracker(finder())
    for index, frame in enumerate(frames):
        (seen,) = strides.push(frame, index)
        assert seen.index == index
        assert seen.pixels is frame
        (expected,) = alone.update(frame, index)
        np.testing.assert_array_equal(seen.faces[0].landmarks, expected.landmarks)
    assert strides.flush() == []


def test_a_head_that_shakes_is_looked_at_on_every_frame() -> None:
    def shaking(index: int) -> Pose:
        return Pose(320 + 9 * np.sin(2 * np.pi * 5 * index / 25), 240, EYES_PX)

    frames, truth = filmed(60, shaking)
    counting = CountingFinder()
    seen = followed(frames, counting=counting)
    off = np.linalg.norm(mouths(seen) - np.array([points[MOUTH].mean(axis=0) for points in truth]), axis=1)
    assert counting.landmarked > 60
    assert off.mean() / EYES_PX < 0.03


def test_a_head_that_moves_fast_but_evenly_is_looked_at_on_every_second_frame() -> None:
    frames, truth = filmed(50, lambda index: Pose(140 + 7.2 * index, 240, EYES_PX))
    counting = CountingFinder()
    seen = followed(frames, counting=counting)
    off = np.linalg.norm(mouths(seen) - np.array([points[MOUTH].mean(axis=0) for points in truth]), axis=1)
    assert counting.landmarked < 50
    assert off.mean() / EYES_PX < 0.03


def test_half_way_is_the_mean_of_the_frames_before_and_after() -> None:
    frames, _ = filmed(40, lambda index: Pose(200 + 3 * index, 240, EYES_PX))
    seen = [frame.faces[0] for frame in followed(frames)]
    half_way = [index for index, face in enumerate(seen) if face.is_interpolated]
    assert len(half_way) > 10
    for index in half_way:
        mean = (seen[index - 1].landmarks + seen[index + 1].landmarks) / 2
        np.testing.assert_array_equal(seen[index].landmarks, mean)
        assert seen[index - 1].box.left < seen[index].box.left < seen[index + 1].box.left


@pytest.mark.parametrize("cut", [30, 31])
def test_after_a_cut_another_person_in_the_same_place_has_another_id(cut: int) -> None:
    frames, _ = filmed(cut, lambda _: Pose(320, 240, EYES_PX))
    others, _ = filmed(30, lambda _: Pose(320, 240, EYES_PX), hopper)
    seen = ids(followed([*frames, *others]))
    assert set().union(*seen[:cut]) == {1}
    assert set().union(*seen[cut + 1 :]) == {2}
    assert all(seen[cut + 1 :])


@pytest.mark.parametrize("gone", [25, 26])
def test_a_face_that_goes_is_not_followed_half_way_into_nothing(gone: int) -> None:
    frames, _ = filmed(60, lambda index: Pose(320, 240, EYES_PX) if index < gone else None)
    seen = ids(followed(frames))
    assert all(seen[:gone])
    assert not any(seen[gone + 3 :])


def test_of_two_people_both_are_known_on_frames_that_were_left_out() -> None:
    frames = []
    for index in range(40):
        frame = np.full((480, 1280), 90, np.uint8)
        sway = 12 * np.sin(index / 9)
        painted(astronaut(), Pose(330 + sway, 240, 65), frame, cut_out=True)
        painted(hopper(), Pose(950 - sway, 240, 75), frame, cut_out=True)
        frames.append(frame)
    seen = followed(frames)
    assert ids(seen) == [{1, 2}] * 40
    left_out = [frame for frame in seen if any(face.is_interpolated for face in frame.faces)]
    assert len(left_out) > 10
    for frame in left_out:
        assert [face.box.side for face in frame.faces] == sorted(
            (face.box.side for face in frame.faces), reverse=True
        )


def test_a_still_image_is_looked_at_once() -> None:
    (frame,), _ = filmed(1, lambda _: Pose(320, 240, EYES_PX))
    counting = CountingFinder()
    strides, seen = FrameSkipper(FaceTracker(counting)), []  # type: ignore[arg-type]
    for index in range(3):
        seen += strides.push(frame, index)
    asked = counting.landmarked
    for index in range(3, 60):
        seen += strides.push(frame, index)
    assert counting.landmarked == asked
    assert [one.index for one in seen] == list(range(60))
    assert len({one.faces[0].landmarks.tobytes() for one in seen}) == 1


def test_a_image_that_stands_for_two_frames_is_the_same_on_both() -> None:
    frames, _ = filmed(30, speaking)
    seen = followed([frame for frame in frames for _ in range(2)])
    assert len(seen) == 60
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        np.testing.assert_array_equal(first.faces[0].landmarks, second.faces[0].landmarks)


def test_frames_that_were_never_sent_are_not_bridged() -> None:
    frames, _ = filmed(60, speaking)
    tracker = FaceTracker(finder())
    strides = FrameSkipper(tracker)
    indices = [index for index in range(60) if index % 7]
    seen = [one for index in indices for one in strides.push(frames[index], index)] + strides.flush()
    assert [one.index for one in seen] == indices
    assert ids(seen) == [{1}] * len(indices)
