"""Who speaks, judged from lips that were moved by a known amount."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.frame_skipping import FrameSkipper
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
from tests.vision.synthetic_video import astronaut, finder, hopper, painted, swaying, syllables

SPEECH = slice(40, 110)
FRAMES = 150


@cache
def talk(person: str, *, live: bool = False) -> tuple[list[NDArray[np.float32]], NDArray[np.uint8]]:
    """Landmarks and crops of six seconds in which a swaying head speaks from frame 40 to 110, from a file or live."""
    head = {"astronaut": astronaut, "hopper": hopper}[person]()
    strides, frames, seen = FrameSkipper(FaceTracker(finder()), skip_frames=not live), [], []
    for index in range(FRAMES):
        frame = np.zeros((480, 640), np.uint8)
        opening = syllables(index) if SPEECH.start <= index < SPEECH.stop else 0.0
        painted(head, swaying(640, 480, index, 65, opening=opening), frame)
        frames.append(frame)
        seen += strides.push(frame, index)
    landmarks = [one.faces[0].landmarks for one in [*seen, *strides.flush()]]
    return landmarks, crop_mouths(np.stack(frames), landmarks, load_mean_face())


def movement_of(landmarks: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    meter = MotionEstimator()
    values = [
        value
        for index, points in enumerate(landmarks)
        for value in meter.push(index, compute_lip_shape(points))
    ]
    return np.array(values + meter.flush())


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("person", ["astronaut", "hopper"])
def test_speaking_lips_are_distinguished_from_resting_ones_on_a_moving_head(person: str, live: bool) -> None:
    landmarks, crops = talk(person, live=live)
    activity = VisualVoiceActivityDetector()
    probability: list[float] = []
    for index, (points, crop) in enumerate(zip(landmarks, crops, strict=True)):
        probability += activity.push(index, points, crop)
    probability += activity.flush()
    assert len(probability) == FRAMES
    assert (np.array(probability[50:100]) > 0.5).mean() > 0.9
    assert max(probability[:30]) < 0.5
    assert max(probability[120:]) < 0.5


@pytest.mark.parametrize("person", ["astronaut", "hopper"])
def test_crops_alone_tell_speaking_from_resting(person: str) -> None:
    activity = CropVoiceActivityDetector()
    crops = talk(person)[1]
    probability = [value for index, crop in enumerate(crops) for value in activity.push(index, crop)]
    probability = np.array(probability + activity.flush())
    assert (probability[50:100] > 0.5).all()
    assert (probability[:30] < 0.5).all()
    assert (probability[120:] < 0.5).all()


def test_a_probability_comes_four_frames_late_wherever_the_count_begins() -> None:
    landmarks, crops = talk("astronaut")
    first, second = VisualVoiceActivityDetector(), VisualVoiceActivityDetector()
    one, other = [], []
    for index, (points, crop) in enumerate(zip(landmarks, crops, strict=True)):
        one += first.push(500 + index, points, crop)
        other += second.push(index, points, crop)
        assert len(one) == max(0, index - 3)
    one += first.flush()
    assert len(one) == FRAMES
    assert one == other + second.flush()


def test_frames_without_a_face_keep_their_places() -> None:
    landmarks, crops = talk("astronaut")
    given = VisualVoiceActivityDetector()
    skipped = VisualVoiceActivityDetector()
    one, other = [], []
    for index, (points, crop) in enumerate(zip(landmarks, crops, strict=True)):
        is_hidden = 60 <= index < 90
        one += given.push(index, *((None, None) if is_hidden else (points, crop)))
        other += [] if is_hidden else skipped.push(index, points, crop)
    one += given.flush()
    other += skipped.flush()
    assert len(one) == FRAMES
    assert one == other
    assert max(one[70:80]) == 0


def test_a_flushed_estimator_starts_again() -> None:
    meter = MotionEstimator()
    first = [value for index in range(20) for value in meter.push(index, np.array([float(index % 3)]))]
    first += meter.flush()
    second = [
        value for index in range(7, 27) for value in meter.push(index, np.array([float((index - 7) % 3)]))
    ]
    second += meter.flush()
    assert first == second
    assert len(first) == 20


def test_what_counts_as_movement_follows_the_face_within_bounds() -> None:
    def border(*, rest: float, speech: float, frames: int = 200) -> float:
        usual = AdaptiveThreshold()
        return [usual.push(speech if index % 100 < 50 else rest) for index in range(frames)][-1]

    assert 0.5 < border(rest=0.5, speech=2.0) < 2.0
    # One who trembles, and speaks as clearly: the border lies between all the same.
    assert 1.2 < border(rest=1.2, speech=3.0) < 3.0
    # One who only rests is not taken to speak, nor one who only speaks to rest.
    assert border(rest=0.2, speech=0.2) == MIN_THRESHOLD
    assert border(rest=4.0, speech=4.0) == MAX_THRESHOLD
    assert border(rest=0.2, speech=0.2, frames=40) == 1.0


def test_steady_change_is_not_movement() -> None:
    meter = MotionEstimator()
    values = [
        value for index in range(40) for value in meter.push(index, np.array([0.02 * index, -0.01 * index]))
    ]
    assert max(values + meter.flush()) < 1e-9


def test_no_input_yields_no_output() -> None:
    assert VisualVoiceActivityDetector().flush() == []
    assert CropVoiceActivityDetector().flush() == []


def test_an_opened_mouth_is_measured_in_eye_distances() -> None:
    head = astronaut()
    opened = compute_lip_shape(head.speaking(0.2).landmarks)[0] - compute_lip_shape(head.landmarks)[0]
    assert opened == pytest.approx(0.19, abs=0.04)


@pytest.mark.parametrize("lag", [-4, -2, 0, 3, 4])
def test_a_mouth_agrees_with_its_own_audio_at_a_small_shift(lag: int) -> None:
    rng = np.random.default_rng(2)
    envelope = np.convolve(rng.uniform(0, 30, 140), np.ones(4) / 4, "same")
    own = np.roll(envelope, lag)[20:120] + rng.normal(0, 1, 100)
    other = np.convolve(rng.uniform(0, 30, 140), np.ones(4) / 4, "same")[20:120]
    assert audio_visual_correlation(own, envelope[20:120]) > 0.8
    assert audio_visual_correlation(other, envelope[20:120]) < 0.5


def test_of_two_faces_the_one_that_moves_with_the_audio_agrees_more() -> None:
    audio = np.zeros(FRAMES, np.float32)
    audio[SPEECH] = 15
    speaks = movement_of(talk("astronaut")[0])
    rests = movement_of(talk("hopper")[0][: SPEECH.start] * 4)
    assert audio_visual_correlation(speaks, audio) > 0.7
    assert audio_visual_correlation(speaks, audio) > audio_visual_correlation(rests, audio) + 0.4


@pytest.mark.parametrize(
    ("movement", "audio"),
    [
        (np.zeros(50), np.arange(50.0)),
        (np.arange(50.0), np.ones(50)),
        (np.arange(5.0), np.arange(5.0)),
        ([], []),
    ],
)
def test_what_does_not_change_or_is_too_short_agrees_with_nothing(movement, audio) -> None:
    assert audio_visual_correlation(np.asarray(movement, float), np.asarray(audio, float)) == 0


def test_curves_of_different_length_are_compared_as_far_as_both_go() -> None:
    curve = np.sin(np.arange(60) / 3)
    assert audio_visual_correlation(curve, curve[:40]) == pytest.approx(1)
    assert -1 <= audio_visual_correlation(curve, -curve) <= 1


def test_half_of_the_frames_show_as_much_movement_as_all() -> None:
    noise = np.random.default_rng(3).normal(0, 1, (2000, 2))
    whole, halved = MotionEstimator(), MotionEstimator()
    of_all, of_half = [], []
    for index, numbers in enumerate(noise):
        of_all += whole.push(index, numbers)
        of_half += halved.push(index, None if index % 2 else numbers)
    assert np.mean(np.square(of_half)) == pytest.approx(np.mean(np.square(of_all)), rel=0.1)
