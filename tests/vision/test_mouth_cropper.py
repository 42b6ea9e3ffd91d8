"""Mouth cropping compared with the reference implementation, for whole clips and streams."""

from __future__ import annotations

import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.errors import InvalidRequestError, NoFaceError
from gorggle_server.vision.mouth_cropper import (
    MAX_KEPT_PIXELS,
    SMOOTHING_FRAMES,
    LowLatencyMouthCropper,
    MouthCropper,
    crop_mouths,
    estimate_similarity,
    load_mean_face,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "avhubert" / "preprocessing.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray]:
    return dict(np.load(GOLDEN))


def get_landmarks(golden: dict[str, NDArray]) -> list[NDArray | None]:
    return [
        None if frame in golden["missing"] else points for frame, points in enumerate(golden["landmarks"])
    ]


def test_crops_match_the_reference_within_two_grey_levels(golden) -> None:
    crops = crop_mouths(golden["frames"], get_landmarks(golden), golden["mean_face"])
    difference = np.abs(crops.astype(int) - golden["mouth_roi"])
    assert crops.shape == (40, 96, 96)
    assert crops.dtype == np.uint8
    assert (difference <= 2).mean() >= 0.99
    assert difference.max() <= 4


def test_the_packaged_mean_face_matches_the_reference(golden) -> None:
    np.testing.assert_array_equal(load_mean_face(), golden["mean_face"])


def test_streaming_crops_equal_those_of_the_whole_clip(golden) -> None:
    landmarks = get_landmarks(golden)
    expected = crop_mouths(golden["frames"], landmarks, golden["mean_face"])
    cropper = MouthCropper(golden["mean_face"], max_gap_frames=5)
    crops = []
    for index, (frame, points) in enumerate(zip(golden["frames"], landmarks, strict=True)):
        crops += cropper.push(100 + index, frame, points)
    buffered = 40 - len(crops)
    crops += cropper.flush()
    assert [index for index, _ in crops] == list(range(100, 140))
    np.testing.assert_array_equal(np.stack([pixels for _, pixels in crops]), expected)
    # The last frame has no landmarks, and the smoothing window looks ahead 11 frames.
    assert buffered == SMOOTHING_FRAMES


def test_a_crop_is_returned_after_eleven_more_frames(golden) -> None:
    cropper = MouthCropper(golden["mean_face"])
    ready = [
        len(cropper.push(index, golden["frames"][index], golden["landmarks"][index])) for index in range(20)
    ]
    assert ready == [0] * 11 + [1] * 9


def test_low_latency_crops_are_similar_to_the_delayed_crops(golden) -> None:
    frames, landmarks = golden["frames"], golden["landmarks"]
    low_latency, cropper = LowLatencyMouthCropper(golden["mean_face"]), MouthCropper(golden["mean_face"])
    immediate = [low_latency.push(frame, points) for frame, points in zip(frames, landmarks, strict=True)]
    delayed = [
        crop.pixels
        for index, (frame, points) in enumerate(zip(frames, landmarks, strict=True))
        for crop in cropper.push(index, frame, points)
    ]
    correlations = [
        np.corrcoef(crop.ravel(), immediate[index].ravel())[0, 1] for index, crop in enumerate(delayed)
    ]
    assert min(correlations) > 0.95
    first = LowLatencyMouthCropper(golden["mean_face"]).push(frames[0], landmarks[0])
    np.testing.assert_array_equal(first, crop_mouths(frames[:1], landmarks[:1], golden["mean_face"])[0])


def test_a_long_gap_does_not_delay_crops(golden) -> None:
    """After the maximum gap, crops continue with the last landmarks, so that memory is bounded."""
    cropper = MouthCropper(golden["mean_face"], max_gap_frames=10)
    frame, points = golden["frames"][20], golden["landmarks"][20]
    crops = [crop for index in range(12) for crop in cropper.push(index, frame, points)]
    for index in range(12, 500):
        crops += cropper.push(index, frame, None)
        assert index - len(crops) <= 10 + SMOOTHING_FRAMES
    crops += cropper.push(500, frame, points)
    crops += cropper.flush()
    assert [index for index, _ in crops] == list(range(501))
    np.testing.assert_array_equal(crops[300].pixels, crops[0].pixels)


def test_frames_long_before_the_first_face_are_dropped(golden) -> None:
    cropper = MouthCropper(golden["mean_face"], max_gap_frames=10)
    frame, points = golden["frames"][20], golden["landmarks"][20]
    crops = [crop for index in range(300) for crop in cropper.push(index, frame, None)]
    crops += cropper.push(300, frame, points)
    crops += cropper.flush()
    assert [index for index, _ in crops] == list(range(290, 301))


def test_a_cropper_can_be_reused_after_flush(golden) -> None:
    cropper = MouthCropper(golden["mean_face"])
    clips = []
    for _ in range(2):
        crops = [
            crop
            for index in range(15)
            for crop in cropper.push(index, golden["frames"][index + 15], golden["landmarks"][index + 15])
        ]
        clips.append([pixels for _, pixels in crops + cropper.flush()])
    np.testing.assert_array_equal(clips[0], clips[1])


@pytest.mark.parametrize("length", [1, 2, 11, 12, 13])
def test_a_clip_shorter_than_the_smoothing_window_has_a_crop_for_every_frame(golden, length: int) -> None:
    crops = crop_mouths(golden["frames"][:length], list(golden["landmarks"][:length]), golden["mean_face"])
    assert crops.shape == (length, 96, 96)
    assert crops.std() > 10


def test_a_clip_without_a_face_is_rejected(golden) -> None:
    with pytest.raises(NoFaceError, match="no face was found in 40 frames"):
        crop_mouths(golden["frames"], [None] * 40, golden["mean_face"])


def test_resize_without_face_scales_down_the_frames(golden) -> None:
    crops = crop_mouths(golden["frames"], [None] * 40, golden["mean_face"], resize_without_face=True)
    assert crops.shape == (40, 96, 96)
    assert abs(float(crops.mean()) - float(golden["frames"].mean())) < 1


def test_a_mouth_beyond_the_edge_of_the_frame_yields_a_crop(golden) -> None:
    far = golden["landmarks"][20] + [250, 200]
    crops = crop_mouths(golden["frames"][:3], [far] * 3, golden["mean_face"])
    assert crops.shape == (3, 96, 96)


@pytest.mark.parametrize(
    ("frames", "landmarks", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), [None, None], "expected uint8 of shape"),
        (np.zeros((2, 8, 8), np.float32), [None, None], "float32"),
        (np.zeros((2, 8, 8), np.uint8), [None], "1 landmarks for 2 frames"),
        (np.zeros((1, 8, 8), np.uint8), [np.zeros((5, 2))], r"\(5, 2\)"),
    ],
)
def test_wrong_shapes_and_types_are_rejected(frames, landmarks, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        crop_mouths(frames, landmarks, load_mean_face())


def test_a_similarity_transform_is_recovered() -> None:
    points = np.random.default_rng(3).uniform(0, 100, (5, 2))
    angle, scale, shift = 0.4, 1.7, np.array([5.0, -30.0])
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = estimate_similarity(points, points @ rotation.T + shift)
    np.testing.assert_allclose(found, np.column_stack([rotation, shift]), atol=1e-9)


def test_coincident_points_yield_a_finite_transform() -> None:
    found = estimate_similarity(np.ones((5, 2)), np.random.default_rng(0).uniform(0, 9, (5, 2)))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("place", [(0, 0), (1500, 900), (3000, 1700)])
def test_a_face_in_a_large_frame_has_the_same_crop(golden, place: tuple[int, int]) -> None:
    frame, points = golden["frames"][0], golden["landmarks"][0]
    large = np.zeros((2160, 3840), np.uint8)
    x, y = place
    large[y : y + frame.shape[0], x : x + frame.shape[1]] = frame
    crops = crop_mouths(large[None], [points + place], golden["mean_face"])
    expected = crop_mouths(frame[None], [points], golden["mean_face"])
    assert np.abs(crops.astype(int) - expected).max() <= 1


def test_a_large_face_is_reduced_before_it_is_cropped(golden) -> None:
    frame, points = golden["frames"][0], golden["landmarks"][0]
    factor = 8
    assert frame.size * factor**2 > MAX_KEPT_PIXELS
    large = cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 20, large.shape)
    noisy = np.clip(large + noise, 0, 255).astype(np.uint8)
    crops = crop_mouths(noisy[None], [(points + 0.5) * factor - 0.5], golden["mean_face"])
    difference = np.abs(crops.astype(int) - crop_mouths(frame[None], [points], golden["mean_face"]))
    assert difference.mean() < 7


def test_large_frames_are_not_kept(golden) -> None:
    cropper, frames, crops = MouthCropper(golden["mean_face"]), [], []
    for index in range(20):
        frame = np.full((2160, 3840), 90, np.uint8)
        frames.append(weakref.ref(frame))
        crops += cropper.push(index, frame, golden["landmarks"][0] if index % 5 else None)
        del frame
    assert all(frame() is None for frame in frames)
    assert len([*crops, *cropper.flush()]) == 20


def test_landmarks_outside_a_large_frame_yield_a_black_crop(golden) -> None:
    frame = np.full((1, 2160, 3840), 90, np.uint8)
    assert not crop_mouths(frame, [golden["landmarks"][0] - 5000], golden["mean_face"]).any()
