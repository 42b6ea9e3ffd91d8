"""Visual voice activity detection on a synthetic talking head with known lip movement."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.frame_skipping import FrameSkipper
from gorggle_server.vision.landmark_model import LandmarkModelName
from gorggle_server.vision.lip_activity import (
    MAX_THRESHOLD,
    MIN_THRESHOLD,
    AdaptiveThreshold,
    CropVoiceActivityDetector,
    MotionEstimator,
    VisualVoiceActivityDetector,
    audio_visual_correlation,
    compute_lip_shape,
)
from gorggle_server.vision.mouth_cropper import crop_mouths, load_mean_face
from tests.vision.synthetic_video import (
    astronaut,
    face_detector,
    hopper,
    mouth_opening,
    paint_head,
    swaying_pose,
)

SPEECH = slice(40, 110)
FRAMES = 150


@cache
def render_talking_head(
    person: str, *, live: bool = False, landmark_model: LandmarkModelName = LandmarkModelName.DLIB
) -> tuple[list[NDArray[np.float32]], NDArray[np.uint8]]:
    """Return landmarks and mouth crops of a six-second clip in which a moving head speaks from frame 40 to 110."""
    head = {"astronaut": astronaut, "hopper": hopper}[person]()
    tracker = FaceTracker(face_detector(landmark_model))
    skipper, frames, results = FrameSkipper(tracker, skip_frames=not live), [], []
    for index in range(FRAMES):
        frame = np.zeros((480, 640), np.uint8)
        opening = mouth_opening(index) if SPEECH.start <= index < SPEECH.stop else 0.0
        paint_head(head, swaying_pose(640, 480, index, 65, opening=opening), frame)
        frames.append(frame)
        results += skipper.push(frame, index)
    landmarks = [result.faces[0].landmarks for result in [*results, *skipper.flush()]]
    return landmarks, crop_mouths(np.stack(frames), landmarks, load_mean_face())


def estimate_movement(landmarks: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    estimator = MotionEstimator()
    values = [
        value
        for index, points in enumerate(landmarks)
        for value in estimator.push(index, compute_lip_shape(points))
    ]
    return np.array(values + estimator.flush())


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("person", ["astronaut", "hopper"])
@pytest.mark.parametrize("landmark_model", LandmarkModelName)
def test_speaking_is_distinguished_from_rest_on_a_moving_head(
    landmark_model: LandmarkModelName, person: str, live: bool
) -> None:
    landmarks, crops = render_talking_head(person, live=live, landmark_model=landmark_model)
    activity = VisualVoiceActivityDetector(landmark_model)
    probability: list[float] = []
    for index, (points, crop) in enumerate(zip(landmarks, crops, strict=True)):
        probability += activity.push(index, points, crop)
    probability += activity.flush()
    assert len(probability) == FRAMES
    assert (np.array(probability[50:100]) > 0.5).mean() > 0.9
    assert max(probability[:30]) < 0.5
    assert max(probability[120:]) < 0.5


@pytest.mark.parametrize("person", ["astronaut", "hopper"])
def test_speaking_is_distinguished_from_rest_with_crops_only(person: str) -> None:
    activity = CropVoiceActivityDetector()
    crops = render_talking_head(person)[1]
    probability = [value for index, crop in enumerate(crops) for value in activity.push(index, crop)]
    probability = np.array(probability + activity.flush())
    assert (probability[50:100] > 0.5).all()
    assert (probability[:30] < 0.5).all()
    assert (probability[120:] < 0.5).all()


def test_probabilities_lag_four_frames_for_any_first_index() -> None:
    landmarks, crops = render_talking_head("astronaut")
    first, second = VisualVoiceActivityDetector(), VisualVoiceActivityDetector()
    one, other = [], []
    for index, (points, crop) in enumerate(zip(landmarks, crops, strict=True)):
        one += first.push(500 + index, points, crop)
        other += second.push(index, points, crop)
        assert len(one) == max(0, index - 3)
    one += first.flush()
    assert len(one) == FRAMES
    assert one == other + second.flush()


def test_frames_without_a_face_have_a_probability() -> None:
    landmarks, crops = render_talking_head("astronaut")
    with_hidden = VisualVoiceActivityDetector()
    skipped = VisualVoiceActivityDetector()
    one, other = [], []
    for index, (points, crop) in enumerate(zip(landmarks, crops, strict=True)):
        is_hidden = 60 <= index < 90
        one += with_hidden.push(index, *((None, None) if is_hidden else (points, crop)))
        other += [] if is_hidden else skipped.push(index, points, crop)
    one += with_hidden.flush()
    other += skipped.flush()
    assert len(one) == FRAMES
    assert one == other
    assert max(one[70:80]) == 0


def test_an_estimator_can_be_reused_after_flush() -> None:
    estimator = MotionEstimator()
    first = [value for index in range(20) for value in estimator.push(index, np.array([float(index % 3)]))]
    first += estimator.flush()
    second = [
        value for index in range(7, 27) for value in estimator.push(index, np.array([float((index - 7) % 3)]))
    ]
    second += estimator.flush()
    assert first == second
    assert len(first) == 20


def test_the_movement_threshold_adapts_within_bounds() -> None:
    def compute_threshold(*, rest: float, speech: float, frames: int = 200) -> float:
        threshold = AdaptiveThreshold()
        return [threshold.push(speech if index % 100 < 50 else rest) for index in range(frames)][-1]

    assert 0.5 < compute_threshold(rest=0.5, speech=2.0) < 2.0
    # Noisy landmarks raise the movement at rest; the threshold still lies between rest and speech.
    assert 1.2 < compute_threshold(rest=1.2, speech=3.0) < 3.0
    # Constant rest is not classified as speech, and constant speech is not classified as rest.
    assert compute_threshold(rest=0.2, speech=0.2) == MIN_THRESHOLD
    assert compute_threshold(rest=4.0, speech=4.0) == MAX_THRESHOLD
    assert compute_threshold(rest=0.2, speech=0.2, frames=40) == 1.0


def test_slow_linear_change_is_not_movement() -> None:
    estimator = MotionEstimator()
    values = [
        value
        for index in range(40)
        for value in estimator.push(index, np.array([0.02 * index, -0.01 * index]))
    ]
    assert max(values + estimator.flush()) < 1e-9


def test_no_input_yields_no_output() -> None:
    assert VisualVoiceActivityDetector().flush() == []
    assert CropVoiceActivityDetector().flush() == []


def test_mouth_opening_is_measured_in_eye_distances() -> None:
    head = astronaut()
    opened = compute_lip_shape(head.open_mouth(0.2).landmarks)[0] - compute_lip_shape(head.landmarks)[0]
    assert opened == pytest.approx(0.19, abs=0.04)


@pytest.mark.parametrize("lag", [-4, -2, 0, 3, 4])
def test_lip_movement_correlates_with_its_audio_at_a_small_lag(lag: int) -> None:
    rng = np.random.default_rng(2)
    envelope = np.convolve(rng.uniform(0, 30, 140), np.ones(4) / 4, "same")
    own = np.roll(envelope, lag)[20:120] + rng.normal(0, 1, 100)
    other = np.convolve(rng.uniform(0, 30, 140), np.ones(4) / 4, "same")[20:120]
    assert audio_visual_correlation(own, envelope[20:120]) > 0.8
    assert audio_visual_correlation(other, envelope[20:120]) < 0.5


def test_the_speaking_face_correlates_more_with_the_audio() -> None:
    audio = np.zeros(FRAMES, np.float32)
    audio[SPEECH] = 15
    speaking = estimate_movement(render_talking_head("astronaut")[0])
    resting = estimate_movement(render_talking_head("hopper")[0][: SPEECH.start] * 4)
    assert audio_visual_correlation(speaking, audio) > 0.7
    assert audio_visual_correlation(speaking, audio) > audio_visual_correlation(resting, audio) + 0.4


@pytest.mark.parametrize(
    ("movement", "audio"),
    [
        (np.zeros(50), np.arange(50.0)),
        (np.arange(50.0), np.ones(50)),
        (np.arange(5.0), np.arange(5.0)),
        ([], []),
    ],
)
def test_constant_or_short_signals_have_zero_correlation(movement, audio) -> None:
    assert audio_visual_correlation(np.asarray(movement, float), np.asarray(audio, float)) == 0


def test_signals_of_different_length_are_compared_over_their_overlap() -> None:
    curve = np.sin(np.arange(60) / 3)
    assert audio_visual_correlation(curve, curve[:40]) == pytest.approx(1)
    assert -1 <= audio_visual_correlation(curve, -curve) <= 1


def test_skipping_every_second_frame_keeps_the_movement_level() -> None:
    noise = np.random.default_rng(3).normal(0, 1, (2000, 2))
    all_frames, half_frames = MotionEstimator(), MotionEstimator()
    all_values, half_values = [], []
    for index, numbers in enumerate(noise):
        all_values += all_frames.push(index, numbers)
        half_values += half_frames.push(index, None if index % 2 else numbers)
    assert np.mean(np.square(half_values)) == pytest.approx(np.mean(np.square(all_values)), rel=0.1)
