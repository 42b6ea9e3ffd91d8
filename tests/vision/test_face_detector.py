"""Face detection in two photographs."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from gorggle_server.vision.face_detector import DETECTION_MODEL_FILE, get_fine_side
from gorggle_server.vision.face_geometry import BoundingBox, estimate_box, estimate_pose
from tests.vision.synthetic_video import Pose, astronaut, face_detector, hopper, make_frame, paint_head


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


def test_a_face_is_detected_at_low_brightness_and_contrast() -> None:
    frame, _ = make_frame(astronaut(), 80)
    dim = cv2.convertScaleAbs(frame, alpha=0.4, beta=10)
    assert len(face_detector().detect(dim)) == 1
