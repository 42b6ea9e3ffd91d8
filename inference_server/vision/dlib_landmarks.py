"""Predicts landmarks with dlib's 68-point predictor."""

from __future__ import annotations

import threading
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import dlib
import numpy as np

from gorggle_server.errors import NotFoundError
from gorggle_server.vision.face_geometry import BoundingBox, rotate_to_centre
from gorggle_server.vision.landmark_model import PredictedLandmarks, find_dlib_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The predictor errs by 1 to 2 % of the eye distance up to a roll of 20 degrees, by 5 % at 30 and fails at 45; and it
# returns whole pixels. Faces that are rolled further, or whose box is smaller than this, are rotated upright and scaled to
# this box first, in an image of this size.
MAX_DIRECT_ROLL_DEG = 15.0
UPRIGHT_BOX_PX = 150
UPRIGHT_SIZE = (300, 300)

_get_coordinates = attrgetter("x", "y")


class DlibPredictor:
    """dlib's 68-point predictor. Thread-safe.

    The model (100 MB, 0.5 s to load) is read-only and shared by the whole process. It returns landmarks even if the box has
    no face: the caller must verify the face.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Load the model, by default that of the package ``face_recognition_models``.

        Raises:
            NotFoundError: the file does not exist or is not a predictor, or the package is not installed.
        """
        self._predictor = _get_predictor(find_dlib_model(path))

    def predict(
        self, frame: NDArray[np.uint8], box: BoundingBox, roll_deg: float = 0.0
    ) -> PredictedLandmarks:
        """Predict landmarks; see ``LandmarkPredictor``."""
        if abs(roll_deg) <= MAX_DIRECT_ROLL_DEG and box.side >= UPRIGHT_BOX_PX:
            return PredictedLandmarks(self._run(np.ascontiguousarray(frame), box))
        scale = UPRIGHT_BOX_PX / max(box.side, 1.0)
        to_upright = rotate_to_centre(complex(*box.centre), UPRIGHT_SIZE, roll_deg, scale)
        upright = cv2.warpAffine(frame, to_upright, UPRIGHT_SIZE, borderMode=cv2.BORDER_REPLICATE)
        width, height = UPRIGHT_SIZE
        upright_box = BoundingBox.from_centre(((width - 1) / 2, (height - 1) / 2), UPRIGHT_BOX_PX)
        points = self._run(np.asarray(upright, np.uint8), upright_box)
        to_frame = cv2.invertAffineTransform(to_upright)
        return PredictedLandmarks((points @ to_frame[:, :2].T + to_frame[:, 2]).astype(np.float32))

    def _run(self, image: NDArray[np.uint8], box: BoundingBox) -> NDArray[np.float32]:
        left, top, right, bottom = map(round, box)
        place = dlib.rectangle(left, top, right - 1, bottom - 1)  # type: ignore[attr-defined]
        return np.array(list(map(_get_coordinates, self._predictor(image, place).parts())), np.float32)


_load_lock = threading.Lock()


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
