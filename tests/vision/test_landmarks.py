"""Landmark prediction in two photographs, with dlib's predictor and MediaPipe's face mesh."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from gorggle_server.errors import ModelFormatError, NotFoundError
from gorggle_server.vision import face_mesh
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.face_geometry import BoundingBox, estimate_box, estimate_pose
from gorggle_server.vision.face_mesh import FaceMeshPredictor, load_correspondence
from gorggle_server.vision.face_track import MIN_PRESENCE
from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.landmark_model import (
    LandmarkModel,
    LandmarkModelName,
    PredictedLandmarks,
    find_dlib_model,
)
from tests.vision.synthetic_video import MOUTH, astronaut, face_detector, make_frame

MESH = LandmarkModel(LandmarkModelName.MEDIAPIPE)


def test_landmarks_match_those_of_the_enlarged_photograph(detector: FaceDetector) -> None:
    frame, truth = make_frame(astronaut(), 80)
    landmarks, presence = detector.predict_landmarks(frame, estimate_box(truth.astype(np.float32)))
    assert landmarks.shape == (68, 2)
    assert landmarks.dtype == np.float32
    assert presence > 0.99
    assert np.linalg.norm(landmarks - truth, axis=1).mean() < 0.04 * 80


@pytest.mark.parametrize("eyes_px", [15, 60])
@pytest.mark.parametrize("roll_deg", [-45, -20, 20, 45, 90])
def test_landmarks_of_small_and_rolled_faces_are_as_accurate(
    detector: FaceDetector, eyes_px: float, roll_deg: float
) -> None:
    frame, truth = make_frame(astronaut(), eyes_px, roll_deg=roll_deg)
    box, roll = estimate_pose(truth)
    landmarks = detector.predict_landmarks(frame, box, roll + 8).points
    assert np.linalg.norm(landmarks - truth, axis=1).mean() < 0.045 * eyes_px
    assert np.linalg.norm((landmarks - truth)[MOUTH].mean(axis=0)) < 0.03 * eyes_px
    assert estimate_pose(landmarks).roll_deg == pytest.approx(roll, abs=2)


@pytest.mark.parametrize(("shift", "scale"), [(-0.1, 0.9), (0.1, 1.15)])
def test_a_second_fit_makes_up_for_an_imprecise_box(
    detector: FaceDetector, shift: float, scale: float
) -> None:
    frame, truth = make_frame(astronaut(), 60)
    box, roll = estimate_pose(truth)
    (x, y), side = box.centre, box.side
    imprecise = BoundingBox.from_centre((x + shift * side, y - shift * side), scale * side)
    first = detector.predict_landmarks(frame, imprecise, roll).points
    second = detector.predict_landmarks(frame, *estimate_pose(first)).points
    assert np.linalg.norm(second - truth, axis=1).mean() < 0.045 * 60


@pytest.mark.parametrize("picture", [data.coffee, data.chelsea, data.coins, data.gravel])
def test_what_resembles_a_face_has_no_presence(picture) -> None:
    image = picture()
    grey = np.ascontiguousarray(image if image.ndim == 2 else image[..., 1])
    candidates = face_detector().detect(grey, 640, min_score=0.1)
    assert candidates
    for face in candidates:
        assert FaceMeshPredictor().predict(grey, face.box, face.roll_deg).presence < MIN_PRESENCE


class FacelessDetector:
    """The real detector, whose landmark model sees no face from a frame on."""

    def __init__(self, first_frame: int) -> None:
        self.detect, self.detect_near = face_detector().detect, face_detector().detect_near
        self.detections = 0
        self.is_blind = first_frame == 0

    def predict_landmarks(
        self, frame: NDArray[np.uint8], box: BoundingBox, roll_deg: float = 0.0
    ) -> PredictedLandmarks:
        found = face_detector().predict_landmarks(frame, box, roll_deg)
        return found._replace(presence=0.2) if self.is_blind else found


def test_a_detected_face_that_the_landmark_model_does_not_see_is_not_tracked() -> None:
    detector = FacelessDetector(0)
    tracker = FaceTracker(detector)  # type: ignore[arg-type]
    frame, _ = make_frame(astronaut(), 65)
    assert tracker.update(frame, 0) == []
    assert tracker.faces_dropped == 0


def test_the_detector_verifies_a_tracked_face_that_the_landmark_model_does_not_see() -> None:
    detector = FacelessDetector(1)
    tracker = FaceTracker(detector)  # type: ignore[arg-type]
    frame, _ = make_frame(astronaut(), 65)
    assert len(tracker.update(frame, 0)) == 1
    detector.is_blind = True
    assert len(tracker.update(frame.copy(), 1)) == 1
    assert tracker.update(np.zeros_like(frame), 2) == []


def test_landmarks_of_the_correspondence_are_mirrored() -> None:
    offsets = load_correspondence().offsets
    for left, right in ((36, 45), (39, 42), (48, 54), (31, 35), (0, 16)):
        np.testing.assert_allclose(offsets[left], offsets[right] * [-1, 1], atol=0.02)


def test_the_mesh_can_be_shared_between_threads() -> None:
    frame, truth = make_frame(astronaut(), 80)
    box = estimate_box(truth)
    predictor = FaceMeshPredictor()
    expected = predictor.predict(frame, box).points
    with ThreadPoolExecutor(4) as pool:
        for points, _ in pool.map(lambda _: predictor.predict(frame, box), range(8)):
            np.testing.assert_array_equal(points, expected)


def test_the_mesh_is_the_converted_one() -> None:
    digest = hashlib.sha256(face_mesh.MODEL_FILE.read_bytes()).hexdigest()
    assert digest == "e504ba3b9671906ee6067c84b35a685258912ab9dda9767935581ad2a3b60848"


def test_the_mesh_needs_neither_dlib_nor_its_model() -> None:
    code = (
        "import sys; sys.modules['dlib'] = sys.modules['face_recognition_models'] = None\n"
        "from gorggle_server.sandbox import decoder_main\n"
        "from gorggle_server.vision.landmark_model import LandmarkModel\n"
        "decoder_main.preload(LandmarkModel.from_arguments(['mediapipe']))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_damaged_mesh_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    monkeypatch.setattr(face_mesh, "MODEL_FILE", damaged)
    face_mesh._open_model.cache_clear()
    with pytest.raises(ModelFormatError, match=r"damaged\.onnx cannot be loaded"):
        FaceDetector(MESH)
    face_mesh._open_model.cache_clear()


def test_a_landmark_model_is_passed_to_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for model in (LandmarkModel(), MESH):
        assert LandmarkModel.from_arguments(model.to_arguments()) == model
    named = LandmarkModel(path=Path("mine.dat"))
    assert LandmarkModel.from_arguments(named.to_arguments()).path == tmp_path / "mine.dat"


def test_the_packaged_dlib_model_is_the_default(tmp_path: Path) -> None:
    assert find_dlib_model().name == "shape_predictor_68_face_landmarks.dat"
    other = tmp_path / "other.dat"
    other.touch()
    assert find_dlib_model(other) == other


def test_a_missing_dlib_model_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.dat does not exist"):
        FaceDetector(LandmarkModel(path=tmp_path / "absent.dat"))


def test_an_invalid_dlib_model_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "text.dat"
    file.write_text("not a predictor")
    with pytest.raises(NotFoundError, match="not a dlib landmark predictor"):
        FaceDetector(LandmarkModel(path=file))


def test_a_missing_package_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NotFoundError, match="install face_recognition_models"):
        find_dlib_model()
