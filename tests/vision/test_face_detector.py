"""Face and landmark detection in two photographs."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from gorggle_server.errors import NotFoundError
from gorggle_server.vision.face_detector import (
    DETECTION_MODEL_FILE,
    BoundingBox,
    FaceDetector,
    estimate_box,
    estimate_pose,
    find_landmark_model,
    get_fine_side,
)
from tests.vision.synthetic_video import Pose, astronaut, face_detector, hopper, paint_head


def make_frame(head, eyes_px: float, size: tuple[int, int] = (640, 480), roll_deg: float = 0.0):
    canvas = np.zeros(size[::-1], np.uint8)
    truth = paint_head(head, Pose(size[0] / 2, size[1] / 2, eyes_px, turn=-roll_deg), canvas)
    return canvas, truth


def test_the_detection_model_is_the_published_one() -> None:
    digest = hashlib.sha256(DETECTION_MODEL_FILE.read_bytes()).hexdigest()
    assert digest == "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"


@pytest.mark.parametrize("head", [astronaut, hopper])
@pytest.mark.parametrize(("size", "eyes_px"), [((640, 480), 80), ((1280, 720), 110)])
def test_a_face_is_detected_at_its_position(head, size: tuple[int, int], eyes_px: float) -> None:
    frame, truth = make_frame(head(), eyes_px, size)
    face = face_detector().detect(frame)[0]
    expected = estimate_pose(truth)
    assert face.score > 0.85
    assert face.box.iou(expected.box) > 0.8
    assert face.roll_deg == pytest.approx(expected.roll_deg, abs=6)


def test_landmarks_match_those_of_the_enlarged_photograph() -> None:
    frame, truth = make_frame(astronaut(), 80)
    landmarks = face_detector().predict_landmarks(frame, estimate_box(truth.astype(np.float32)))
    assert landmarks.shape == (68, 2)
    assert landmarks.dtype == np.float32
    assert np.linalg.norm(landmarks - truth, axis=1).mean() < 0.04 * 80


@pytest.mark.parametrize("eyes_px", [15, 60])
@pytest.mark.parametrize("roll_deg", [-45, -20, 20, 45, 90])
def test_landmarks_of_small_and_rolled_faces_are_as_accurate(eyes_px: float, roll_deg: float) -> None:
    frame, truth = make_frame(astronaut(), eyes_px, roll_deg=roll_deg)
    box, roll = estimate_pose(truth)
    landmarks = face_detector().predict_landmarks(frame, box, roll + 8)
    assert np.linalg.norm(landmarks - truth, axis=1).mean() < 0.03 * eyes_px
    assert estimate_pose(landmarks).roll_deg == pytest.approx(roll, abs=2)


@pytest.mark.parametrize("roll_deg", [-45, 45, 90, 180])
def test_a_rolled_face_is_detected_when_its_roll_is_expected(roll_deg: float) -> None:
    frame, truth = make_frame(hopper(), 40, roll_deg=roll_deg)
    box, roll = estimate_pose(truth)
    near = face_detector().detect_near(frame, box, roll_deg=roll_deg)
    for face in (near, face_detector().detect(frame, 640, roll_deg=roll_deg)[0]):
        assert face is not None
        assert face.score > 0.85
        assert face.box.iou(box) > 0.8
        assert np.exp(1j * np.radians(face.roll_deg - roll)).real > np.cos(np.radians(4))
        assert face.landmark_distance(truth) < 0.06


def test_a_small_face_is_detected_at_fine_resolution() -> None:
    frame, _ = make_frame(astronaut(), 20, (1280, 720))
    assert face_detector().detect(frame, min_score=0.7) == []
    assert len(face_detector().detect(frame, get_fine_side(frame), min_score=0.7)) == 1


def test_the_largest_face_comes_first() -> None:
    frame = np.full((480, 1280), 90, np.uint8)
    paint_head(astronaut(), Pose(300, 240, 60), frame, cut_out=True)
    paint_head(hopper(), Pose(900, 240, 85), frame, cut_out=True)
    faces = face_detector().detect(frame, get_fine_side(frame))
    assert [face.box.centre[0] > 600 for face in faces] == [True, False]


def test_a_face_is_detected_near_its_previous_position() -> None:
    frame, truth = make_frame(astronaut(), 40, (1280, 720))
    box = estimate_box(truth.astype(np.float32))
    face = face_detector().detect_near(frame, BoundingBox(*(side + 0.2 * box.side for side in box)))
    assert face is not None
    assert face.box.iou(box) > 0.5
    assert face_detector().detect_near(frame, BoundingBox.from_centre((1000, 600), box.side)) is None


@pytest.mark.parametrize(
    "box",
    [
        BoundingBox(-500, -500, -300, -300),
        BoundingBox(1000, 1000, 1200, 1200),
        BoundingBox.from_centre((50, 50), 0),
        BoundingBox(0, 0, 9e4, 9e4),
    ],
)
def test_no_face_is_detected_outside_the_frame(box: BoundingBox) -> None:
    assert face_detector().detect_near(np.zeros((480, 640), np.uint8), box) is None


@pytest.mark.parametrize("shape", [(1, 1), (2, 1280), (1280, 8), (96, 96)])
def test_frames_of_any_shape_are_supported(shape: tuple[int, int]) -> None:
    frame = np.zeros(shape, np.uint8)
    assert face_detector().detect(frame, get_fine_side(frame)) == []


def test_the_estimated_box_scales_with_the_landmarks() -> None:
    _, truth = make_frame(hopper(), 80)
    box = estimate_box(truth)
    smaller = estimate_box(truth * 0.5 + 10)
    assert smaller.side == pytest.approx(box.side / 2)
    assert smaller.centre == pytest.approx((box.centre[0] / 2 + 10, box.centre[1] / 2 + 10))


def test_a_detector_can_be_shared_between_threads() -> None:
    frame, _ = make_frame(astronaut(), 80)
    (expected,) = face_detector().detect(frame)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: face_detector().detect(frame), range(8)))
    assert [face.box for (face,) in found] == [expected.box] * 8


def test_boxes_overlap_by_intersection_over_union() -> None:
    assert BoundingBox(0, 0, 10, 10).iou(BoundingBox(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert BoundingBox(0, 0, 10, 10).iou(BoundingBox(10, 0, 20, 10)) == 0
    assert BoundingBox(0, 0, 0, 0).iou(BoundingBox(0, 0, 0, 0)) == 0


def test_the_packaged_landmark_model_is_the_default(tmp_path: Path) -> None:
    assert find_landmark_model().name == "shape_predictor_68_face_landmarks.dat"
    other = tmp_path / "other.dat"
    other.touch()
    assert find_landmark_model(other) == other


def test_a_missing_landmark_model_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.dat does not exist"):
        FaceDetector(tmp_path / "absent.dat")


def test_an_invalid_landmark_model_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "text.dat"
    file.write_text("not a predictor")
    with pytest.raises(NotFoundError, match="not a dlib landmark predictor"):
        FaceDetector(file)


def test_a_missing_package_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NotFoundError, match="install face_recognition_models"):
        find_landmark_model()


def test_a_face_is_detected_at_low_brightness_and_contrast() -> None:
    frame, _ = make_frame(astronaut(), 80)
    dim = cv2.convertScaleAbs(frame, alpha=0.4, beta=10)
    assert len(face_detector().detect(dim)) == 1
