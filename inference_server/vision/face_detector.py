"""Finds faces and their landmarks in grey frames, by dlib."""

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

# dlib's detector knows faces of 80 pixels and more. It looks at a frame of this short side: in the coarse search it
# sees faces of a third of the frame, in 5 ms; in the fine one of a sixth, in 20 ms. Small frames are enlarged.
COARSE_SIDE_PX = 240
FINE_SIDE_PX = 480
MAX_UPSCALING = 4.0

# To look again at a known face, the square of this many face widths around it is scaled so that the face has this
# width: a little above the least.
SEARCH_FACE_WIDTHS = 2.0
SEARCH_FACE_PX = 100

# Where dlib's detector puts its box around a face, in the canvas of the mean face: found by fitting the landmarks of
# 80 detections (two photographs, turned by up to 15 degrees, 0.6 to 1.6 times their size) to the mean face.
CANVAS_BOX_CENTRE = np.array([129.0, 125.5])
CANVAS_BOX_SIDE = 131.0


_get_coordinates = attrgetter("x", "y")


class BoundingBox(NamedTuple):
    """A square or rectangle in the frame, in pixels; right and bottom lie outside."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def from_centre(cls, centre: tuple[float, float], side: float) -> BoundingBox:
        """The square of this side around a point."""
        x, y = centre
        return cls(x - side / 2, y - side / 2, x + side / 2, y + side / 2)

    @property
    def width(self) -> float:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    @property
    def side(self) -> float:
        """The side of a square of the same area."""
        return math.sqrt(max(0.0, self.width) * max(0.0, self.height))

    @property
    def centre(self) -> tuple[float, float]:
        """The point in the middle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def translate(self, offset: complex) -> BoundingBox:
        """The box so far away: x + iy, in pixels."""
        x, y = offset.real, offset.imag
        return BoundingBox(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def iou(self, other: BoundingBox) -> float:
        """Intersection over union with another box, 0 to 1."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(0.0, width) * max(0.0, height)
        union = self.width * self.height + other.width * other.height - shared
        return shared / union if union > 0 else 0.0

    def distance(self, other: BoundingBox) -> float:
        """Pixels between the centres."""
        return math.dist(self.centre, other.centre)


@dataclass(frozen=True)
class DetectedFace:
    """A face and how sure the detector is: 0 is its own threshold, plain frontal faces have 1 to 2.5."""

    box: BoundingBox
    score: float


class FaceDetector:
    """Finds faces and landmarks. May be shared by threads.

    dlib's detector keeps its working memory in the object and cannot be shared, so each thread gets one of its own;
    the landmark predictor (100 MB, 0.5 s to load) is only read, and the whole process has one of each file.
    """

    def __init__(self, landmark_model: Path | None = None) -> None:
        """Load the landmark model: that of the package ``face_recognition_models`` unless another is named.

        Raises:
            NotFoundError: there is no such file, or the package is not installed.
        """
        self._predictor = _get_predictor(find_landmark_model(landmark_model))
        # OpenCV's threads take longer to meet than pictures so small take to make; streams have threads of their own.
        cv2.setNumThreads(1)

    def detect(
        self, frame: NDArray[np.uint8], short_side_px: int = COARSE_SIDE_PX, min_score: float = 0.0
    ) -> list[DetectedFace]:
        """All faces in the frame scaled to ``short_side_px``, largest first.

        Args:
            frame: uint8 (H, W), grey.
            short_side_px: faces narrower than 80 pixels at that size are not seen.
            min_score: below 0 finds more faces and more that are none.
        """
        return self._run_detector(
            frame, min(short_side_px / min(frame.shape), MAX_UPSCALING), (0.0, 0.0), min_score
        )

    def detect_near(
        self, frame: NDArray[np.uint8], box: BoundingBox, min_score: float = 0.0
    ) -> DetectedFace | None:
        """The face that overlaps best with where one is expected, if there is one."""
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
        """The 68 points (iBUG order) of the face in the box: (68, 2), pixels, x before y.

        dlib gives whole pixels, and points even where there is no face: the caller must know that there is one.
        """
        place = dlib.rectangle(*_to_dlib_rectangle(box))  # type: ignore[attr-defined]
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
    """Where the detector would put its box around a face with these landmarks (68, 2)."""
    to_canvas = estimate_similarity(landmarks.astype(np.float64), load_mean_face())
    factor = complex(to_canvas[0, 0], to_canvas[1, 0])
    if abs(factor) < 1e-9:
        x, y = landmarks.mean(axis=0)
        return BoundingBox.from_centre((float(x), float(y)), 0.0)
    centre = (complex(*(CANVAS_BOX_CENTRE - to_canvas[:, 2]))) / factor
    return BoundingBox.from_centre((centre.real, centre.imag), CANVAS_BOX_SIDE / abs(factor))


def find_landmark_model(path: Path | None = None) -> Path:
    """The file of the landmark model: ``path``, else that of the package ``face_recognition_models``.

    Raises:
        NotFoundError: there is no such file, or the package is not installed.
    """
    if path is not None:
        if not path.is_file():
            raise NotFoundError(
                f"the landmark model {path} is not a file: give a dlib predictor of 68 points"
            )
        return path
    # Only located: importing the package needs pkg_resources, which setuptools no longer has.
    spec = importlib.util.find_spec(LANDMARK_MODEL_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, "models", LANDMARK_MODEL_FILE)
        if file.is_file():
            return file
    raise NotFoundError(
        f"{LANDMARK_MODEL_FILE} was not found: install {LANDMARK_MODEL_PACKAGE} (it comes with gorggle[server]), "
        "or name another dlib predictor of 68 points by the setting landmark_model"
    )


_load_lock = threading.Lock()
_thread_local = threading.local()


def _get_predictor(path: Path) -> Any:
    with _load_lock:  # two threads that start together must not load 100 MB twice
        return _load_predictor(path.resolve())


@lru_cache(maxsize=2)
def _load_predictor(path: Path) -> Any:
    try:
        return dlib.shape_predictor(str(path))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise NotFoundError(
            f"{path} is no dlib landmark predictor ({error}): give one of 68 points"
        ) from error


def _get_thread_detector() -> Any:
    if not hasattr(_thread_local, "detector"):
        _thread_local.detector = dlib.get_frontal_face_detector()  # type: ignore[attr-defined]
    return _thread_local.detector


def _to_frame_box(box: Any, scale: tuple[float, float], origin: tuple[float, float]) -> BoundingBox:
    """A box of dlib's, whose right and bottom lie inside, from the scaled picture back in the frame."""
    (x_scale, y_scale), (x, y) = scale, origin
    return BoundingBox(
        x + box.left() / x_scale,
        y + box.top() / y_scale,
        x + (box.right() + 1) / x_scale,
        y + (box.bottom() + 1) / y_scale,
    )


def _to_dlib_rectangle(box: BoundingBox) -> tuple[int, int, int, int]:
    return round(box.left), round(box.top), round(box.right) - 1, round(box.bottom) - 1
