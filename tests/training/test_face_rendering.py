"""Drawn faces: crops in the server's geometry, and whole faces in which the detector finds them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gorggle_server.vision.face_detector import FaceDetector, estimate_box
from gorggle_server.vision.mouth_cropper import crop_mouths, load_mean_face
from training.face_rendering import Speaker, demo_speaker, render_crops, render_frames
from training.mouth_geometry import mouth_shape
from training.photo_animation import Photograph, render_photo_crops, render_photo_frames
from training.speech_synthesis import TimedPhoneme, Voice, pad_speech, synthesize
from training.visemes import ArticulationStyle, mouth_motion

# Faces without a moustache, of dark, fair and middle skin: a moustache hides the edge of the upper lip.
SPEAKERS = {
    "demo": demo_speaker(),
    "fair": Speaker.from_seed(2_000_005),
    "dark": Speaker.from_seed(2_000_004),
}


@pytest.fixture(scope="module")
def finder() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def sentence_motion() -> np.ndarray:
    speech = pad_speech(synthesize("bin blue at f two now", Voice()), 0.2, 0.2)
    return mouth_motion(speech.phonemes, speech.duration_s)


def held(symbol: str, style: ArticulationStyle | None = None) -> np.ndarray:
    """One sound, held for a second."""
    phonemes = [TimedPhoneme(symbol, 0.0, 1.0)] if symbol else []
    return mouth_motion(phonemes, 1.0, style=style)


def middle_picture(speaker: Speaker, symbol: str) -> np.ndarray:
    return render_crops(speaker, held(symbol), np.random.default_rng(3))[12].astype(float)[20:76, 16:80]


def landmarks_of(frames: list[np.ndarray], finder: FaceDetector) -> list[np.ndarray | None]:
    """Landmarks by detection, then again in the box that fits them: dlib's predictor minds its box."""
    found: list[np.ndarray | None] = []
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        faces = finder.detect(grey)
        points = finder.predict_landmarks(grey, faces[0].box) if faces else None
        found.append(points if points is None else finder.predict_landmarks(grey, estimate_box(points)))
    return found


def share_detected(frames: list[np.ndarray], finder: FaceDetector) -> float:
    """The share of the frames on which the detector alone, without following, finds exactly one face."""
    return float(np.mean([len(finder.detect(cv2.cvtColor(f, cv2.COLOR_BGR2GRAY))) == 1 for f in frames]))


def lip_openings(landmarks: list[np.ndarray | None]) -> np.ndarray:
    assert all(points is not None for points in landmarks)
    return np.array([(points[65:68, 1] - points[[63, 62, 61], 1]).mean() for points in landmarks])


@pytest.mark.parametrize("name", SPEAKERS)
def test_the_drawn_mouth_is_dark_inside_when_open_and_has_no_inside_when_pressed(name: str) -> None:
    speaker = SPEAKERS[name]
    closed, opened = middle_picture(speaker, "m"), middle_picture(speaker, "ɑː")
    # Around the middle of the mouth: where it is open there is its inside, dark against the skin.
    skin = np.median(closed)
    height_closed, height_open = (
        (picture[:, 28:36] < 0.4 * skin).sum(axis=0).mean() for picture in (closed, opened)
    )
    assert height_open > 8
    assert height_closed < 4


def test_every_viseme_is_drawn_differently() -> None:
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
    pictures = {symbol: middle_picture(SPEAKERS["demo"], symbol) for symbol in symbols}
    differences = {
        (a, b): float(np.sqrt(np.mean((pictures[a] - pictures[b]) ** 2)))
        for a in symbols
        for b in symbols
        if a < b
    }
    closest = min(differences, key=lambda pair: differences[pair])
    assert differences[closest] > 3.0, closest


def test_crops_have_the_models_size_and_one_for_each_frame(sentence_motion: np.ndarray) -> None:
    crops = render_crops(SPEAKERS["fair"], sentence_motion, np.random.default_rng(0))
    assert crops.shape == (len(sentence_motion), 96, 96)
    assert crops.dtype == np.uint8


def test_seeds_reproduce_exactly(sentence_motion: np.ndarray) -> None:
    def drawn(speaker_seed: int, seed: int) -> np.ndarray:
        speaker = Speaker.random(np.random.default_rng(speaker_seed))
        return render_crops(speaker, sentence_motion, np.random.default_rng(seed))

    first = drawn(7, 1)
    assert np.array_equal(first, drawn(7, 1))
    assert not np.array_equal(first, drawn(7, 2))
    assert not np.array_equal(first, drawn(8, 1))


def test_frames_reproduce_exactly(sentence_motion: np.ndarray) -> None:
    first, again = (list(render_frames(demo_speaker(), sentence_motion[:4])) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("name", SPEAKERS)
def test_the_detector_finds_every_drawn_face_and_its_lips_follow_the_motion(
    name: str, finder: FaceDetector, sentence_motion: np.ndarray
) -> None:
    speaker = SPEAKERS[name]
    frames = list(render_frames(speaker, sentence_motion))
    assert share_detected(frames, finder) == 1.0
    openings = lip_openings(landmarks_of(frames, finder))
    shape = mouth_shape(speaker.mouth, sentence_motion)
    drawn = (shape.lower_inner - shape.upper_inner)[:, 8]
    assert np.corrcoef(openings, drawn)[0, 1] > 0.8


@pytest.mark.parametrize("photo", Photograph)
@pytest.mark.parametrize("size", [(640, 480), (1280, 720)])
def test_the_detector_finds_every_talking_photograph_and_its_lips_follow_the_motion(
    photo: Photograph, size: tuple[int, int], finder: FaceDetector, sentence_motion: np.ndarray
) -> None:
    frames = list(render_photo_frames(photo, sentence_motion, size))
    assert frames[0].shape == (size[1], size[0], 3)
    assert share_detected(frames, finder) == 1.0
    shape = mouth_shape(demo_speaker().mouth, sentence_motion)
    drawn = (shape.lower_inner - shape.upper_inner)[:, 8]
    assert np.corrcoef(lip_openings(landmarks_of(frames, finder)), drawn)[0, 1] > 0.8


@pytest.mark.parametrize("name", SPEAKERS)
def test_crops_drawn_directly_look_like_those_cut_from_whole_faces(
    name: str, finder: FaceDetector, sentence_motion: np.ndarray
) -> None:
    frames = list(render_frames(SPEAKERS[name], sentence_motion))
    greys = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames])
    cut = crop_mouths(greys, landmarks_of(frames, finder), load_mean_face())
    direct = [render_crops(SPEAKERS[name], sentence_motion, np.random.default_rng(seed)) for seed in range(8)]
    mean_cut = normalised(cut)
    likeness = [float(np.mean(mean_cut * normalised(crops))) for crops in direct]
    assert np.median(likeness) > 0.75
    other_words = mean_cut * normalised(direct[0])[::-1]
    assert likeness[0] > float(np.mean(other_words))


def normalised(crops: np.ndarray) -> np.ndarray:
    """Crops around the mouth, blurred a little, mean 0 and variance 1 over the clip: light does not count."""
    blurred = np.stack([cv2.GaussianBlur(crop, (0, 0), 2.0) for crop in crops]).astype(float)[:, 24:72, 20:76]
    return (blurred - blurred.mean()) / blurred.std()


@pytest.mark.parametrize("photo", Photograph)
def test_photographs_give_crops_too(photo: Photograph, sentence_motion: np.ndarray) -> None:
    first, again = (render_photo_crops(photo, sentence_motion, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (len(sentence_motion), 96, 96)
    assert np.array_equal(first, again)
