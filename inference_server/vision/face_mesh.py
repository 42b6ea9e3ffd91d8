"""Predicts landmarks with MediaPipe's face mesh of 468 points.

The mesh is fitted in a square region around the face that is rotated upright, as MediaPipe does: 1.5 times as large as the
mesh on the previous frame. The 68 landmarks are points of the mesh, or midpoints of two, each with an offset: dlib's
landmarks, which the crops of the published models are cut by, lie elsewhere, at the outer corners of the eyes by 4 % of the eye
distance. Offsets are medians over faces, measured by ``training/face_mesh_offsets.py``.
"""

from __future__ import annotations

import cmath
import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from gorggle_server.onnx_session import open_session
from gorggle_server.vision.face_geometry import rotate_to_centre
from gorggle_server.vision.landmark_model import PredictedLandmarks
from gorggle_server.vision.mouth_cropper import STABLE_POINTS, estimate_similarity, load_mean_face

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gorggle_server.vision.face_geometry import BoundingBox

ASSETS = Path(__file__).parents[1] / "assets"
MODEL_FILE = ASSETS / "mediapipe-face-mesh.onnx"
CORRESPONDENCE_FILE = ASSETS / "mediapipe-face-mesh-68.json"

INPUT_PX = 192
MESH_POINTS = 468

# The region that MediaPipe derives from the mesh, relative to the side of the box and, below, from its centre: medians over
# 454 faces, with standard deviations of 0.03 and 0.013.
REGION_SIDE = 1.84
REGION_OFFSET = -0.036


class Correspondence(NamedTuple):
    """How the 68 landmarks follow from the mesh.

    Attributes:
        indices: int (68, 2), points of the mesh whose midpoint is taken; the same one twice for a single point.
        offsets: float64 (68, 2), from there to the landmark, in the canvas of the mean face.
    """

    indices: NDArray[np.int64]
    offsets: NDArray[np.float64]

    def apply(self, mesh: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the landmarks (68, 2) of a mesh (468, 2)."""
        points: NDArray[np.float64] = mesh[self.indices].mean(axis=1)
        target = load_mean_face()[STABLE_POINTS] - self.offsets[STABLE_POINTS]
        to_canvas = estimate_similarity(points[STABLE_POINTS], target)[:, :2]
        square = float(np.linalg.det(to_canvas))
        # The inverse of a rotation and scaling is its transpose, scaled.
        return points + self.offsets @ to_canvas / square if square > 0 else points


class FaceMeshPredictor:
    """MediaPipe's face mesh. Thread-safe; the model (1.3 MB) is shared by the whole process."""

    def __init__(self) -> None:
        """Load the model.

        Raises:
            NotFoundError: onnxruntime is not installed.
            ModelFormatError: the file is missing or damaged.
        """
        self._session = _open_model()
        self._correspondence = load_correspondence()

    def predict(
        self, frame: NDArray[np.uint8], box: BoundingBox, roll_deg: float = 0.0
    ) -> PredictedLandmarks:
        """Predict landmarks; see ``LandmarkPredictor``."""
        mesh, presence = self.predict_mesh(frame, box, roll_deg)
        return PredictedLandmarks(self._correspondence.apply(mesh).astype(np.float32), presence)

    def predict_mesh(
        self, frame: NDArray[np.uint8], box: BoundingBox, roll_deg: float = 0.0
    ) -> tuple[NDArray[np.float64], float]:
        """Return the mesh, float64 (468, 2) in pixels, and the probability that there is a face."""
        side = max(box.side, 1.0)
        centre = complex(*box.centre) + cmath.rect(REGION_OFFSET * side, math.radians(roll_deg) + math.pi / 2)
        size = INPUT_PX, INPUT_PX
        to_input = rotate_to_centre(centre, size, roll_deg, INPUT_PX / (REGION_SIDE * side))
        image = cv2.warpAffine(frame, to_input, size, borderMode=cv2.BORDER_REPLICATE)
        pixels = np.empty((1, 3, INPUT_PX, INPUT_PX), np.float32)
        np.multiply(image, np.float32(1 / 255), out=pixels)
        mesh, logit = self._session.run(["mesh", "presence"], {"image": pixels})
        # MediaPipe's coordinates begin at the edge of the first pixel, OpenCV's at its centre.
        points = mesh.reshape(MESH_POINTS, 3)[:, :2].astype(np.float64) - 0.5
        to_frame = cv2.invertAffineTransform(to_input)
        return points @ to_frame[:, :2].T + to_frame[:, 2], 1 / (1 + math.exp(-float(logit[0, 0])))


@cache
def load_correspondence() -> Correspondence:
    """Return the embedded correspondence."""
    entries = json.loads(CORRESPONDENCE_FILE.read_text())["landmarks"]
    indices = [[entry["mesh"][0], entry["mesh"][-1]] for entry in entries]
    return Correspondence(np.array(indices), np.array([entry["offset"] for entry in entries], np.float64))


@cache
def _open_model() -> Any:
    return open_session(MODEL_FILE)
