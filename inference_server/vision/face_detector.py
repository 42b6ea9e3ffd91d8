"""Detects faces in grayscale frames with OpenCV's YuNet, and their landmarks with a landmark model."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gorggle_server.errors import NotFoundError
from gorggle_server.vision.face_geometry import BoundingBox, estimate_pose_from_points, rotate_to_centre
from gorggle_server.vision.landmark_model import (
    DEFAULT_LANDMARK_MODEL,
    LandmarkModel,
    PredictedLandmarks,
    load_predictor,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

DETECTION_MODEL_FILE = Path(__file__).parents[1] / "assets" / "face_detection_yunet_2023mar_int8bq.onnx"

# YuNet detects faces of 24 pixels or wider with scores of 0.85 to 0.95 in grayscale, and loses them below 16. The
# coarse search, 2 ms, reduces the frame to this long side; the fine one to half of its own, but not below this, so that
# it finds faces of 50 pixels in every video up to 4K (12 ms at 1280 x 720, 28 ms at 1920 x 1080, 140 ms at 3840 x 2160).
COARSE_SIDE_PX = 256
MIN_FINE_SIDE_PX = 640
MIN_SCORE = 0.3
MAX_OVERLAP = 0.3  # IoU of boxes of different faces

# Around an expected face, a square of two face widths is rotated upright and scaled to this side (1 ms).
NEAR_SIDE_PX = 128
NEAR_FACE_WIDTHS = 2.0

# YuNet's five points (eyes, nose, corners of the mouth, from left to right in the image) in the canvas of the mean face:
# medians over 102 faces, 80 of them real ones of GRID. A similarity that maps to them has a standard deviation of 2.3 %
# in size and 2 degrees in roll.
CANVAS_POINTS = np.array([[102.0, 94.0], [158.0, 93.0], [129.0, 127.0], [107.0, 153.0], [155.0, 152.5]])

# iBUG order.
LEFT_EYE, RIGHT_EYE, NOSE, MOUTH_CORNERS = slice(36, 42), slice(42, 48), 30, (48, 54)

# Reading images of 32 pixels or fewer in a direction, OpenCV 4.14 returns faces that do not exist: they are padded.
MIN_INPUT_PX = 64

# Networks of a thread, each with its own input size: changing the size costs as much as a coarse search.
MAX_NETWORKS = 8


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A detected face.

    Attributes:
        points: float64 (5, 2), pixels, x before y: eyes, nose, corners of the mouth, from left to right in the image.
        box: that the landmark models expect.
        roll_deg: clockwise in the image.
        score: 0 to 1; upright faces of 24 pixels or more have 0.85 to 0.95.
        search_roll_deg: the roll that was searched for. For a face that is rolled by 30 degrees more, YuNet's points are
            off by 0.1 box sides or more, and ``roll_deg`` by half of the difference or more.
    """

    points: NDArray[np.float64]
    box: BoundingBox
    roll_deg: float
    score: float
    search_roll_deg: float = 0.0

    @classmethod
    def from_points(cls, points: NDArray[np.float64], score: float, search_roll_deg: float) -> DetectedFace:
        """Return the face with these points."""
        return cls(points, *estimate_pose_from_points(points, CANVAS_POINTS), score, search_roll_deg)

    def landmark_distance(self, landmarks: NDArray[np.floating[Any]]) -> float:
        """Return the mean distance between the points and landmarks (68, 2) of them, relative to the side of the box.

        Landmarks of the same face have 0.02 to 0.07.
        """
        eyes = [np.add.reduce(landmarks[eye]) / 6 for eye in (LEFT_EYE, RIGHT_EYE)]
        expected = np.array([*eyes, *landmarks[[NOSE, *MOUTH_CORNERS]]])
        return float(np.linalg.norm(self.points - expected, axis=1).mean()) / max(self.box.side, 1.0)


class FaceDetector:
    """Detects faces and landmarks. Thread-safe.

    YuNet is not thread-safe, so each thread has its own networks (0.1 MB). All files are read here: later calls open none.

    YuNet expects colour. With grayscale in all three channels its scores fall by 0.01 for faces of 30 pixels or more.

    Attributes:
        landmark_model: name of the landmark model.
    """

    def __init__(self, landmark_model: LandmarkModel = DEFAULT_LANDMARK_MODEL) -> None:
        """Load the models.

        Raises:
            NotFoundError: a file does not exist, or a package is not installed.
            ModelFormatError: a file is damaged.
        """
        self.landmark_model = landmark_model.name
        self._predictor = load_predictor(landmark_model)
        _read_detection_model()
        # For such small images, synchronizing OpenCV's threads costs more than it saves; streams run in parallel anyway.
        cv2.setNumThreads(1)

    def detect(
        self,
        frame: NDArray[np.uint8],
        long_side_px: int = COARSE_SIDE_PX,
        min_score: float = MIN_SCORE,
        roll_deg: float = 0.0,
    ) -> list[DetectedFace]:
        """Detect all faces, largest first.

        Args:
            frame: uint8 (H, W), grayscale.
            long_side_px: a larger frame is reduced to this; faces narrower than 24 pixels then may not be found.
            min_score: 0 to 1; a smaller value finds more faces and more false positives.
            roll_deg: the roll of the faces: those rolled by up to 30 degrees more or less are found.
        """
        scale = min(1.0, long_side_px / max(frame.shape))
        scaled = _resize(frame, scale)
        height, width = scaled.shape
        cosine, sine = abs(math.cos(math.radians(roll_deg))), abs(math.sin(math.radians(roll_deg)))
        size = (
            max(math.ceil(width * cosine + height * sine), MIN_INPUT_PX),
            max(math.ceil(width * sine + height * cosine), MIN_INPUT_PX),
        )
        centre = complex(width - 1, height - 1) / 2
        faces = _detect_upright(scaled, centre, size, min_score, roll_deg, scale)
        return sorted(faces, key=lambda face: -face.box.side)

    def detect_near(
        self,
        frame: NDArray[np.uint8],
        box: BoundingBox,
        min_score: float = MIN_SCORE,
        roll_deg: float = 0.0,
    ) -> DetectedFace | None:
        """Detect the face that overlaps most with the expected box and roll; None if there is none."""
        x, y = box.centre
        reach = NEAR_FACE_WIDTHS * box.side / 2 * (math.sqrt(2) if roll_deg else 1)
        left, top = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
        region = frame[top : max(0, math.ceil(y + reach)), left : max(0, math.ceil(x + reach))]
        if min(region.shape) < box.side / 2 or box.side < 1:
            return None
        scale = NEAR_SIDE_PX / (NEAR_FACE_WIDTHS * box.side)
        centre = complex(x - left, y - top) * scale
        size = NEAR_SIDE_PX, NEAR_SIDE_PX
        faces = _detect_upright(
            _resize(region, scale), centre, size, min_score, roll_deg, scale, complex(left, top)
        )
        best = max(faces, key=lambda face: face.box.iou(box), default=None)
        return best if best is not None and best.box.iou(box) > 0 else None

    def predict_landmarks(
        self, frame: NDArray[np.uint8], box: BoundingBox, roll_deg: float = 0.0
    ) -> PredictedLandmarks:
        """Predict the landmarks of the face in a box; see ``LandmarkPredictor``."""
        return self._predictor.predict(frame, box, roll_deg)


def get_fine_side(frame: NDArray[np.uint8]) -> int:
    """Return the long side, in pixels, to which the fine search reduces a frame."""
    return max(MIN_FINE_SIDE_PX, int(max(frame.shape)) // 2)


_thread_local = threading.local()


@cache
def _read_detection_model() -> NDArray[np.uint8]:
    if not DETECTION_MODEL_FILE.is_file():
        raise NotFoundError(f"{DETECTION_MODEL_FILE} is missing: install gorggle again")
    return np.frombuffer(DETECTION_MODEL_FILE.read_bytes(), np.uint8)


def _get_thread_network(size: tuple[int, int]) -> Any:
    """Return this thread's network for images of a size (width, height)."""
    networks: dict[tuple[int, int], Any] = _thread_local.__dict__.setdefault("networks", {})
    if size not in networks:
        if len(networks) == MAX_NETWORKS:
            del networks[next(iter(networks))]
        networks[size] = cv2.FaceDetectorYN.create(
            "onnx", _read_detection_model(), np.empty(0, np.uint8), size, nms_threshold=MAX_OVERLAP
        )
    return networks[size]


def _resize(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    height, width = image.shape
    size = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _detect_upright(
    image: NDArray[np.uint8],
    centre: complex,
    size: tuple[int, int],
    min_score: float,
    roll_deg: float,
    scale: float,
    origin: complex = 0j,
) -> list[DetectedFace]:
    """Detect faces in a part of an image that is rotated upright first.

    Args:
        image: uint8 (H, W), a part of the frame that begins at ``origin``, scaled by ``scale``.
        centre: of the part, in the image.
        size: of the part: width and height.
        min_score: minimum score.
        roll_deg: of the faces, clockwise.
        scale: of the image relative to the frame.
        origin: x + iy, in the frame.
    """
    to_upright = rotate_to_centre(centre, size, roll_deg)
    network = _get_thread_network(size)
    network.setScoreThreshold(min_score)
    _, rows = network.detect(cv2.cvtColor(cv2.warpAffine(image, to_upright, size), cv2.COLOR_GRAY2BGR))
    if rows is None:
        return []
    to_image = cv2.invertAffineTransform(to_upright)
    # A row: the box (left, top, width, height), five points (x, y), the score.
    points = rows[:, 4:14].reshape(-1, 5, 2).astype(np.float64) @ to_image[:, :2].T + to_image[:, 2]
    points = points / scale + (origin.real, origin.imag)
    return [
        DetectedFace.from_points(face, score, roll_deg)
        for face, score in zip(points, rows[:, 14].tolist(), strict=True)
    ]
