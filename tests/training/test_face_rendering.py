"""Rendered faces: mouth crops in the server's geometry, and frames in which the detector finds the face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.face_geometry import estimate_box
from gorggle_server.vision.mouth_cropper import crop_mouths, load_mean_face
from gorggle_training.face_rendering import Speaker, demo_speaker, render_crops, render_frames
from gorggle_training.mouth_geometry import mouth_shape
from gorggle_training.photo_animation import Photograph, render_photo_frames
from gorggle_training.speech_synthesis import TimedPhoneme, Voice, join_speech, synthesize
from gorggle_training.visemes import ArticulationStyle, mouth_motion

# Faces of different skin tones, without a moustache, which would hide the edge of the upper lip.
SPEAKERS = {
    "demo": demo_speaker(),
    "fair": Speaker.from_seed(2_000_005),
    "dark": Speaker.from_seed(2_000_004),
}


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def sentence_motion() -> np.ndarray:
    speech = join_speech([synthesize("bin blue at f two now", Voice())], (0.2, 0.2))
    return mouth_motion(speech.phonemes, speech.duration_s)


def hold_phoneme(symbol: str, style: ArticulationStyle | None = None) -> np.ndarray:
    """Return the mouth motion of one phoneme held for a second."""
    phonemes = [TimedPhoneme(symbol, 0.0, 1.0)] if symbol else []
    return mouth_motion(phonemes, 1.0, style=style)


def render_middle_crop(speaker: Speaker, symbol: str) -> np.ndarray:
    return render_crops(speaker, hold_phoneme(symbol), np.random.default_rng(3))[12].astype(float)[
        20:76, 16:80
    ]


def detect_landmarks(frames: list[np.ndarray], detector: FaceDetector) -> list[np.ndarray | None]:
    """Detect landmarks, then predict them again in the box around them: dlib's predictor depends on the box."""
    landmarks: list[np.ndarray | None] = []
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        faces = detector.detect(grey)
        points = detector.predict_landmarks(grey, faces[0].box).points if faces else None
        landmarks.append(
            points if points is None else detector.predict_landmarks(grey, estimate_box(points)).points
        )
    return landmarks


def detection_rate(frames: list[np.ndarray], detector: FaceDetector) -> float:
    """Return the fraction of frames with exactly one detected face, without tracking."""
    return float(np.mean([len(detector.detect(cv2.cvtColor(f, cv2.COLOR_BGR2GRAY))) == 1 for f in frames]))


def measure_lip_openings(landmarks: list[np.ndarray | None]) -> np.ndarray:
    assert all(points is not None for points in landmarks)
    return np.array([(points[65:68, 1] - points[[63, 62, 61], 1]).mean() for points in landmarks])


@pytest.mark.parametrize("name", SPEAKERS)
def test_an_open_mouth_is_dark_inside_and_a_closed_one_is_not(name: str) -> None:
    speaker = SPEAKERS[name]
    closed, opened = render_middle_crop(speaker, "m"), render_middle_crop(speaker, "ɑː")
    skin = np.median(closed)
    height_closed, height_open = (
        (crop[:, 28:36] < 0.4 * skin).sum(axis=0).mean() for crop in (closed, opened)
    )
    assert height_open > 8
    assert height_closed < 4


def test_every_viseme_has_a_distinct_rendering() -> None:
    symbols = [
        "",
        "b",
        "f",
        "θ",
        "t",
        "l",
        "s",
        "ʃ",
        "ɹ",
        "w",
        "k",
        "iː",
        "ɪ",
        "ɛ",
        "æ",
        "ʌ",
        "ɑː",
        "ɔː",
        "ʊ",
        "uː",
    ]
    crops = {symbol: render_middle_crop(SPEAKERS["demo"], symbol) for symbol in symbols}
    differences = {
        (a, b): float(np.sqrt(np.mean((crops[a] - crops[b]) ** 2))) for a in symbols for b in symbols if a < b
    }
    closest = min(differences, key=lambda pair: differences[pair])
    assert differences[closest] > 3.0, closest


def test_there_is_one_crop_of_96_px_per_frame(sentence_motion: np.ndarray) -> None:
    crops = render_crops(SPEAKERS["fair"], sentence_motion, np.random.default_rng(0))
    assert crops.shape == (len(sentence_motion), 96, 96)
    assert crops.dtype == np.uint8


def test_crops_are_reproducible_by_seed(sentence_motion: np.ndarray) -> None:
    def render(speaker_seed: int, seed: int) -> np.ndarray:
        speaker = Speaker.random(np.random.default_rng(speaker_seed))
        return render_crops(speaker, sentence_motion, np.random.default_rng(seed))

    first = render(7, 1)
    assert np.array_equal(first, render(7, 1))
    assert not np.array_equal(first, render(7, 2))
    assert not np.array_equal(first, render(8, 1))


def test_frames_are_reproducible(sentence_motion: np.ndarray) -> None:
    first, repeated = (list(render_frames(demo_speaker(), sentence_motion[:4])) for _ in range(2))
    assert np.array_equal(first, repeated)


@pytest.mark.parametrize("name", SPEAKERS)
def test_every_rendered_face_is_detected_and_its_lips_follow_the_motion(
    name: str, detector: FaceDetector, sentence_motion: np.ndarray
) -> None:
    speaker = SPEAKERS[name]
    frames = list(render_frames(speaker, sentence_motion))
    assert detection_rate(frames, detector) == 1.0
    openings = measure_lip_openings(detect_landmarks(frames, detector))
    shape = mouth_shape(speaker.mouth, sentence_motion)
    rendered_openings = (shape.lower_inner - shape.upper_inner)[:, 8]
    assert np.corrcoef(openings, rendered_openings)[0, 1] > 0.8


@pytest.mark.parametrize("photo", Photograph)
@pytest.mark.parametrize("size", [(640, 480), (1280, 720)])
def test_every_animated_photograph_is_detected_and_its_lips_follow_the_motion(
    photo: Photograph, size: tuple[int, int], detector: FaceDetector, sentence_motion: np.ndarray
) -> None:
    frames = list(render_photo_frames(photo, sentence_motion, size, np.random.default_rng(0)))
    assert frames[0].shape == (size[1], size[0], 3)
    assert detection_rate(frames, detector) == 1.0
    shape = mouth_shape(demo_speaker().mouth, sentence_motion)
    rendered_openings = (shape.lower_inner - shape.upper_inner)[:, 8]
    assert (
        np.corrcoef(measure_lip_openings(detect_landmarks(frames, detector)), rendered_openings)[0, 1] > 0.8
    )


@pytest.mark.parametrize("name", SPEAKERS)
def test_rendered_crops_correlate_with_crops_of_rendered_frames(
    name: str, detector: FaceDetector, sentence_motion: np.ndarray
) -> None:
    frames = list(render_frames(SPEAKERS[name], sentence_motion))
    greys = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames])
    cropped = crop_mouths(greys, detect_landmarks(frames, detector), load_mean_face())
    rendered = [
        render_crops(SPEAKERS[name], sentence_motion, np.random.default_rng(seed)) for seed in range(8)
    ]
    normalized_crops = normalize(cropped)
    correlations = [float(np.mean(normalized_crops * normalize(crops))) for crops in rendered]
    assert np.median(correlations) > 0.75
    reversed_products = normalized_crops * normalize(rendered[0])[::-1]
    assert correlations[0] > float(np.mean(reversed_products))


def normalize(crops: np.ndarray) -> np.ndarray:
    """Return blurred crops with mean 0 and variance 1, independent of illumination."""
    blurred = np.stack([cv2.GaussianBlur(crop, (0, 0), 2.0) for crop in crops]).astype(float)[:, 24:72, 20:76]
    return (blurred - blurred.mean()) / blurred.std()
