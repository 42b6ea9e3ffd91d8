"""Detects faces in grayscale frames with OpenCV's YuNet, and their landmarks with dlib's predictor."""

from __future__ import annotations

import importlib.util
import math
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import dlib
import numpy as np

from gorggle_server.errors import NotFoundError
from gorggle_server.vision.mouth_cropper import estimate_similarity, load_mean_face

if TYPE_CHECKING:
    from numpy.typing import NDArray

DETECTION_MODEL_FILE = Path(__file__).parents[1] / "assets" / "face_detection_yunet_2023mar_int8bq.onnx"
LANDMARK_MODEL_PACKAGE = "face_recognition_models"
LANDMARK_MODEL_FILE = "shape_predictor_68_face_landmarks.dat"

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

# The box that dlib's predictor was trained with, in the canvas of the mean face.
CANVAS_BOX_CENTRE = np.array([129.0, 125.5])
CANVAS_BOX_SIDE = 131.0

# dlib's predictor errs by 1 to 2 % of the eye distance up to a roll of 20 degrees, by 5 % at 30 and fails at 45; and it
# returns whole pixels. Faces that are rolled further, or whose box is smaller than this, are rotated upright and scaled to
# this box first, in an image of this size.
MAX_DIRECT_ROLL_DEG = 15.0
UPRIGHT_BOX_PX = 150
UPRIGHT_SIZE = (300, 300)

# Reading images of 32 pixels or fewer in a direction, OpenCV 4.14 returns faces that do not exist: they are padded.
MIN_INPUT_PX = 64

# Networks of a thread, each with its own input size: changing the size costs as much as a coarse search.
MAX_NETWORKS = 8


_get_coordinates = attrgetter("x", "y")


class BoundingBox(NamedTuple):
    """A rectangle in the frame, in pixels; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def from_centre(cls, centre: tuple[float, float], side: float) -> BoundingBox:
        """Return the square of this side around a point."""
        x, y = centre
        return cls(x - side / 2, y - side / 2, x + side / 2, y + side / 2)

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.bottom - self.top

    @property
    def side(self) -> float:
        """Side of a square of the same area."""
        return math.sqrt(max(0.0, self.width) * max(0.0, self.height))

    @property
    def centre(self) -> tuple[float, float]:
        """The centre, (x, y)."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def translate(self, offset: complex) -> BoundingBox:
        """Return the box moved by x + iy pixels."""
        x, y = offset.real, offset.imag
        return BoundingBox(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def iou(self, other: BoundingBox) -> float:
        """Return the intersection over union with another box, 0 to 1."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(0.0, width) * max(0.0, height)
        union = self.width * self.height + other.width * other.height - shared
        return shared / union if union > 0 else 0.0

    def distance(self, other: BoundingBox) -> float:
        """Return the distance between the centres in pixels."""
        return math.dist(self.centre, other.centre)


class FacePose(NamedTuple):
    """Where a face is: the box that dlib's predictor expects, and the roll in degrees, clockwise in the image."""

    box: BoundingBox
    roll_deg: float


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A detected face.

    Attributes:
        points: float64 (5, 2), pixels, x before y: eyes, nose, corners of the mouth, from left to right in the image.
        box: that dlib's predictor expects.
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
        return cls(points, *_estimate_pose(points, CANVAS_POINTS), score, search_roll_deg)

    def landmark_distance(self, landmarks: NDArray[np.floating[Any]]) -> float:
        """Return the mean distance between the points and landmarks (68, 2) of them, relative to the side of the box.

        Landmarks of the same face have 0.02 to 0.07.
        """
        eyes = [np.add.reduce(landmarks[eye]) / 6 for eye in (LEFT_EYE, RIGHT_EYE)]
        expected = np.array([*eyes, *landmarks[[NOSE, *MOUTH_CORNERS]]])
        return float(np.linalg.norm(self.points - expected, axis=1).mean()) / max(self.box.side, 1.0)


class FaceDetector:
    """Detects faces and landmarks. Thread-safe.

    YuNet is not thread-safe, so each thread has its own networks (0.1 MB); the landmark predictor (100 MB, 0.5 s to load)
    is read-only and shared by the whole process. All files are read here: later calls open none.

    YuNet expects colour. With grayscale in all three channels its scores fall by 0.01 for faces of 30 pixels or more.
    """

    def __init__(self, landmark_model: Path | None = None) -> None:
        """Load the models; the landmark model is by default that of the package ``face_recognition_models``.

        Raises:
            NotFoundError: a file does not exist, or the package is not installed.
        """
        self._predictor = _get_predictor(find_landmark_model(landmark_model))
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
    ) -> NDArray[np.float32]:
        """Predict the landmarks of the face in a box: (68, 2) in iBUG order, pixels, x before y.

        dlib returns landmarks even if the box has no face: the caller must verify the face.

        Args:
            frame: uint8 (H, W), grayscale.
            box: as of ``DetectedFace`` or ``estimate_pose``.
            roll_deg: of the face, clockwise.
        """
        if abs(roll_deg) <= MAX_DIRECT_ROLL_DEG and box.side >= UPRIGHT_BOX_PX:
            return self._run_predictor(np.ascontiguousarray(frame), box)
        scale = UPRIGHT_BOX_PX / max(box.side, 1.0)
        to_upright = _rotate_to_centre(complex(*box.centre), UPRIGHT_SIZE, roll_deg, scale)
        upright = cv2.warpAffine(frame, to_upright, UPRIGHT_SIZE, borderMode=cv2.BORDER_REPLICATE)
        width, height = UPRIGHT_SIZE
        upright_box = BoundingBox.from_centre(((width - 1) / 2, (height - 1) / 2), UPRIGHT_BOX_PX)
        points = self._run_predictor(np.asarray(upright, np.uint8), upright_box)
        to_frame = cv2.invertAffineTransform(to_upright)
        return (points @ to_frame[:, :2].T + to_frame[:, 2]).astype(np.float32)

    def _run_predictor(self, image: NDArray[np.uint8], box: BoundingBox) -> NDArray[np.float32]:
        left, top, right, bottom = map(round, box)
        place = dlib.rectangle(left, top, right - 1, bottom - 1)  # type: ignore[attr-defined]
        return np.array(list(map(_get_coordinates, self._predictor(image, place).parts())), np.float32)


def estimate_pose(landmarks: NDArray[np.floating[Any]]) -> FacePose:
    """Return the box and the roll of a face with these landmarks (68, 2)."""
    return _estimate_pose(landmarks.astype(np.float64), load_mean_face())


def estimate_box(landmarks: NDArray[np.floating[Any]]) -> BoundingBox:
    """Return the box of a face with these landmarks (68, 2)."""
    return estimate_pose(landmarks).box


def get_fine_side(frame: NDArray[np.uint8]) -> int:
    """Return the long side, in pixels, to which the fine search reduces a frame."""
    return max(MIN_FINE_SIDE_PX, int(max(frame.shape)) // 2)


def _estimate_pose(points: NDArray[np.float64], canvas_points: NDArray[np.float64]) -> FacePose:
    """Return the pose of a face from points (N, 2) in the frame and in the canvas of the mean face."""
    to_canvas = estimate_similarity(points, canvas_points)
    factor = complex(to_canvas[0, 0], to_canvas[1, 0])
    if abs(factor) < 1e-9:
        x, y = points.mean(axis=0)
        return FacePose(BoundingBox.from_centre((float(x), float(y)), 0.0), 0.0)
    centre = (complex(*(CANVAS_BOX_CENTRE - to_canvas[:, 2]))) / factor
    box = BoundingBox.from_centre((centre.real, centre.imag), CANVAS_BOX_SIDE / abs(factor))
    return FacePose(box, -math.degrees(math.atan2(factor.imag, factor.real)))


def find_landmark_model(path: Path | None = None) -> Path:
    """Return the path of the landmark model: ``path``, or the file of the package ``face_recognition_models``.

    Raises:
        NotFoundError: the file does not exist, or the package is not installed.
    """
    if path is not None:
        if not path.is_file():
            raise NotFoundError(
                f"landmark model {path} does not exist: expected a dlib predictor of 68 points"
            )
        return path
    # Located without importing it: the package imports pkg_resources, which setuptools has removed.
    spec = importlib.util.find_spec(LANDMARK_MODEL_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, "models", LANDMARK_MODEL_FILE)
        if file.is_file():
            return file
    raise NotFoundError(
        f"{LANDMARK_MODEL_FILE} was not found: install {LANDMARK_MODEL_PACKAGE} (part of gorggle[server]), "
        "or set landmark_model_path to a dlib predictor of 68 points"
    )


_load_lock = threading.Lock()
_thread_local = threading.local()


def _get_predictor(path: Path) -> Any:
    with _load_lock:  # avoids loading 100 MB twice when two threads start together
        return _load_predictor(path.resolve())


@lru_cache(maxsize=2)
def _load_predictor(path: Path) -> Any:
    try:
        return dlib.shape_predictor(str(path))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise NotFoundError(
            f"{path} is not a dlib landmark predictor ({error}); expected one of 68 points"
        ) from error


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


def _rotate_to_centre(
    centre: complex, size: tuple[int, int], roll_deg: float, scale: float = 1.0
) -> NDArray[np.float64]:
    """Return the transform (2, 3) that undoes the roll and moves ``centre`` to that of an image (width, height)."""
    matrix = np.asarray(cv2.getRotationMatrix2D((centre.real, centre.imag), roll_deg, scale), np.float64)
    matrix[:, 2] += np.array([(size[0] - 1) / 2 - centre.real, (size[1] - 1) / 2 - centre.imag])
    return matrix


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
    to_upright = _rotate_to_centre(centre, size, roll_deg)
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
