"""Names of the landmark models, and what all of them predict."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gorggle_server.errors import NotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gorggle_server.vision.face_geometry import BoundingBox

DLIB_PACKAGE = "face_recognition_models"
DLIB_FILE = "shape_predictor_68_face_landmarks.dat"


class LandmarkModelName(StrEnum):
    """A landmark model: dlib's 68-point predictor, or MediaPipe's face mesh."""

    DLIB = "dlib"
    MEDIAPIPE = "mediapipe"


@dataclass(frozen=True)
class LandmarkModel:
    """A landmark model and, for dlib, a file to use instead of the default one."""

    name: LandmarkModelName = LandmarkModelName.DLIB
    path: Path | None = None

    def to_arguments(self) -> list[str]:
        """Return command-line arguments for another process, whose working directory may differ."""
        return [self.name.value, *([] if self.path is None else [str(self.path.absolute())])]

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> LandmarkModel:
        """Return the model of the arguments of ``to_arguments``; without arguments the default one."""
        name, path = (*arguments, None, None)[:2]
        return cls(LandmarkModelName(name or LandmarkModelName.DLIB), None if path is None else Path(path))


DEFAULT_LANDMARK_MODEL = LandmarkModel()


class PredictedLandmarks(NamedTuple):
    """Landmarks of one face.

    Attributes:
        points: float32 (68, 2) in iBUG order, pixels, x before y.
        presence: probability that there is a face, 0 to 1; 1 from a model that does not estimate it.
    """

    points: NDArray[np.float32]
    presence: float = 1.0


class LandmarkPredictor(Protocol):
    """Predicts the landmarks of faces whose position is known. Thread-safe."""

    def predict(self, frame: NDArray[np.uint8], box: BoundingBox, roll_deg: float) -> PredictedLandmarks:
        """Predict the landmarks of the face in a box.

        Args:
            frame: uint8 (H, W), grayscale.
            box: as of ``face_geometry.estimate_pose``.
            roll_deg: of the face, clockwise.
        """


def load_predictor(model: LandmarkModel) -> LandmarkPredictor:
    """Load a landmark model.

    Raises:
        NotFoundError: its file does not exist or is not a landmark model, or a package is not installed.
        ModelFormatError: the file of the face mesh is damaged.
    """
    # Imported late: each needs a library and a file that the other one does not.
    if model.name is LandmarkModelName.MEDIAPIPE:
        from gorggle_server.vision.face_mesh import FaceMeshPredictor

        return FaceMeshPredictor()
    from gorggle_server.vision.dlib_landmarks import DlibPredictor

    return DlibPredictor(model.path)


def find_dlib_model(path: Path | None = None) -> Path:
    """Return the path of dlib's model: ``path``, or the file of the package ``face_recognition_models``.

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
    spec = importlib.util.find_spec(DLIB_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, "models", DLIB_FILE)
        if file.is_file():
            return file
    raise NotFoundError(
        f"{DLIB_FILE} was not found: install {DLIB_PACKAGE} (part of gorggle[server]), "
        "set landmark_model_path to a dlib predictor of 68 points, or landmark_model to mediapipe"
    )
