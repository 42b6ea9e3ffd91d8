"""Detects faces and their landmarks in grayscale frames with dlib."""

from __future__ import annotations

import importlib.util
import math
import threading
from dataclasses import dataclass
from functools import lru_cache
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

LANDMARK_MODEL_PACKAGE = "face_recognition_models"
LANDMARK_MODEL_FILE = "shape_predictor_68_face_landmarks.dat"

# dlib's detector finds faces of at least 80 pixels in a frame scaled to this short side: the coarse search, 5 ms, finds
# faces of a third of the frame; the fine search, 20 ms, of a sixth. Small frames are enlarged.
COARSE_SIDE_PX = 240
FINE_SIDE_PX = 480
MAX_UPSCALING = 4.0

# To verify a known face, the square of this many face widths around it is scaled so that the face has this width,
# slightly above the detector's minimum.
SEARCH_FACE_WIDTHS = 2.0
SEARCH_FACE_PX = 100

# dlib's detection box in the canvas of the mean face, found by fitting the landmarks of 80 detections (two photographs,
# rotated by up to 15 degrees, scaled by 0.6 to 1.6) to the mean face.
CANVAS_BOX_CENTRE = np.array([129.0, 125.5])
CANVAS_BOX_SIDE = 131.0


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


@dataclass(frozen=True)
class DetectedFace:
    """A detected face. The detector's default score threshold is 0; clear frontal faces have 1 to 2.5."""

    box: BoundingBox
    score: float


class FaceDetector:
    """Detects faces and landmarks. Thread-safe.

    dlib's detector is not thread-safe, so each thread has its own; the landmark predictor (100 MB, 0.5 s to load) is
    read-only and shared by the whole process.
    """

    def __init__(self, landmark_model: Path | None = None) -> None:
        """Load the landmark model, by default that of the package ``face_recognition_models``.

        Raises:
            NotFoundError: the file does not exist, or the package is not installed.
        """
        self._predictor = _get_predictor(find_landmark_model(landmark_model))
        # For such small images, synchronizing OpenCV's threads costs more than it saves; streams run in parallel anyway.
        cv2.setNumThreads(1)

    def detect(
        self, frame: NDArray[np.uint8], short_side_px: int = COARSE_SIDE_PX, min_score: float = 0.0
    ) -> list[DetectedFace]:
        """Detect all faces, largest first.

        Args:
            frame: uint8 (H, W), grayscale.
            short_side_px: the frame is scaled to this; faces narrower than 80 pixels at that scale are not found.
            min_score: a value below 0 finds more faces and more false positives.
        """
        return self._run_detector(
            frame, min(short_side_px / min(frame.shape), MAX_UPSCALING), (0.0, 0.0), min_score
        )

    def detect_near(
        self, frame: NDArray[np.uint8], box: BoundingBox, min_score: float = 0.0
    ) -> DetectedFace | None:
        """Detect the face that overlaps most with the expected box; None if there is none."""
        x, y = box.centre
        reach = SEARCH_FACE_WIDTHS * box.side / 2
        left, top = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
        region = frame[top : max(0, math.ceil(y + reach)), left : max(0, math.ceil(x + reach))]
        if min(region.shape) < box.side / 2 or box.side < 1:
            return None
        faces = self._run_detector(region, SEARCH_FACE_PX / box.side, (left, top), min_score)
        best = max(faces, key=lambda face: face.box.iou(box), default=None)
        return best if best is not None and best.box.iou(box) > 0 else None

    def predict_landmarks(self, frame: NDArray[np.uint8], box: BoundingBox) -> NDArray[np.float32]:
        """Predict the landmarks of the face in a box: (68, 2) in iBUG order, pixels, x before y.

        dlib returns integer coordinates, and landmarks even if the box has no face: the caller must verify the face.
        """
        left, top, right, bottom = map(round, box)
        place = dlib.rectangle(left, top, right - 1, bottom - 1)  # type: ignore[attr-defined]
        shape = self._predictor(np.ascontiguousarray(frame), place)
        return np.array(list(map(_get_coordinates, shape.parts())), np.float32)

    def _run_detector(
        self, image: NDArray[np.uint8], scale: float, origin: tuple[float, float], min_score: float
    ) -> list[DetectedFace]:
        height, width = image.shape
        size = max(1, round(width * scale)), max(1, round(height * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = cv2.resize(image, size, interpolation=interpolation)
        boxes, scores, _ = _get_thread_detector().run(scaled, 0, min_score)
        faces = [
            DetectedFace(_to_frame_box(box, (size[0] / width, size[1] / height), origin), float(score))
            for box, score in zip(boxes, scores, strict=True)
        ]
        return sorted(faces, key=lambda face: -face.box.side)


def estimate_box(landmarks: NDArray[np.floating[Any]]) -> BoundingBox:
    """Estimate the detector's box for a face with these landmarks (68, 2)."""
    to_canvas = estimate_similarity(landmarks.astype(np.float64), load_mean_face())
    factor = complex(to_canvas[0, 0], to_canvas[1, 0])
    if abs(factor) < 1e-9:
        x, y = landmarks.mean(axis=0)
        return BoundingBox.from_centre((float(x), float(y)), 0.0)
    centre = (complex(*(CANVAS_BOX_CENTRE - to_canvas[:, 2]))) / factor
    return BoundingBox.from_centre((centre.real, centre.imag), CANVAS_BOX_SIDE / abs(factor))


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


def _get_thread_detector() -> Any:
    if not hasattr(_thread_local, "detector"):
        _thread_local.detector = dlib.get_frontal_face_detector()  # type: ignore[attr-defined]
    return _thread_local.detector


def _to_frame_box(box: Any, scale: tuple[float, float], origin: tuple[float, float]) -> BoundingBox:
    """Convert a dlib box, whose right and bottom are inclusive, from the scaled image to frame coordinates."""
    (x_scale, y_scale), (x, y) = scale, origin
    return BoundingBox(
        x + box.left() / x_scale,
        y + box.top() / y_scale,
        x + (box.right() + 1) / x_scale,
        y + (box.bottom() + 1) / y_scale,
    )
