"""Face embeddings: vectors that are similar for two images of one person, computed by OpenCV's SFace.

An embedding is biometric data. It stays in the process that tracks the faces and is discarded with the video: it is
neither logged, nor sent, nor stored.
"""

from __future__ import annotations

import json
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gorggle_server.errors import NotFoundError
from gorggle_server.vision.face_detector import LEFT_EYE, MOUTH_CORNERS, NOSE, RIGHT_EYE
from gorggle_server.vision.face_geometry import estimate_pose
from gorggle_server.vision.mouth_cropper import FrameRegion, estimate_similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECOGNITION_MODEL_FILE = Path(__file__).parents[1] / "assets" / "face_recognition_sface_2021dec.onnx"

# The direction of the mean embedding of 40 rendered speakers. SFace was trained on photographs, to which all rendered faces
# are alike: different ones have similarities of up to 0.91. Their own to this direction are 0.64 and more, those of
# photographed faces 0.2 and less.
RENDERED_FACE_FILE = RECOGNITION_MODEL_FILE.with_name("rendered_face_embedding.json")
RENDERED_SIMILARITY = 0.45

# Where the network expects the eyes, the nose and the corners of the mouth, from left to right: those of ArcFace's
# training images, as in OpenCV's FaceRecognizerSF.alignCrop.
ALIGNED_PX = 112
ALIGNED_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

# iBUG order.
NOSE_LINE, LEFT_JAW, RIGHT_JAW = [27, 28, 29, 30, 33], slice(1, 4), slice(13, 16)

# Only clear images of a face are evidence: at least this large, turned to the camera, within the frame, and sharp.
MIN_FACE_PX = 60
# Difference of the nose's distances from the two sides of the jaw, relative to their sum: about 0.2 at a yaw of 25 degrees
# and 0.45 at 45.
MAX_ASYMMETRY = 0.35
# Share of the aligned image that may lie outside of the frame.
MAX_OUTSIDE = 0.1
# Variance of the aligned image's Laplacian divided by that of the image itself.
MIN_SHARPNESS = 0.01


def align_clear_face(
    frame: NDArray[np.uint8], landmarks: NDArray[np.floating[Any]]
) -> NDArray[np.uint8] | None:
    """Return the aligned image of a face, (112, 112); None if it is too small, turned, cut off or blurred to compare.

    Args:
        frame: uint8 (H, W), grayscale.
        landmarks: (68, 2), pixels, x before y.
    """
    points = _get_five_points(landmarks)
    to_aligned = estimate_similarity(points, ALIGNED_POINTS)
    if estimate_pose(landmarks).box.side < MIN_FACE_PX or measure_asymmetry(landmarks) > MAX_ASYMMETRY:
        return None
    if _get_outside_share(frame, to_aligned) > MAX_OUTSIDE:
        return None
    aligned = FrameRegion.around(frame, landmarks).warp(to_aligned, ALIGNED_PX, cv2.BORDER_REPLICATE)
    return aligned if measure_sharpness(aligned) >= MIN_SHARPNESS else None


def measure_sharpness(image: NDArray[np.uint8]) -> float:
    """Return the sharpness of an image: the variance of its Laplacian relative to its own; 0 if it is uniform."""
    contrast = float(image.var())
    return float(cv2.Laplacian(image, cv2.CV_32F).var()) / contrast if contrast else 0.0


def measure_asymmetry(landmarks: NDArray[np.floating[Any]]) -> float:
    """Return how far a face with these landmarks (68, 2) is turned to the side: 0 for a frontal one, up to 1 for a profile."""
    left_eye, right_eye = (landmarks[eye].mean(axis=0) for eye in (LEFT_EYE, RIGHT_EYE))
    across = landmarks @ (right_eye - left_eye)
    nose, left_jaw, right_jaw = (across[part].mean() for part in (NOSE_LINE, LEFT_JAW, RIGHT_JAW))
    width = max(float(right_jaw - left_jaw), 1e-9)
    return min(1.0, abs(float(2 * nose - left_jaw - right_jaw)) / width)


def embed_face(aligned: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the embedding of an aligned face, uint8 (112, 112): float32 (128,), of length 1. Thread-safe.

    SFace expects colour; grayscale is passed in all three channels.

    Raises:
        NotFoundError: the model file is missing.
    """
    with _lock:
        vector = _load_network().feature(cv2.cvtColor(aligned, cv2.COLOR_GRAY2BGR))[0]
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)


def is_rendered(embedding: NDArray[np.float32]) -> bool:
    """Return whether an embedding is that of a rendered face, which resembles all other rendered faces."""
    return float(embedding @ _load_rendered_face()) > RENDERED_SIMILARITY


def preload() -> None:
    """Read all files and run the network once: a sandboxed process cannot open files.

    Raises:
        NotFoundError: a file is missing.
    """
    is_rendered(embed_face(np.zeros((ALIGNED_PX, ALIGNED_PX), np.uint8)))


# One network for all threads: it takes 100 MB, and faces are compared rarely.
_lock = threading.Lock()


@cache
def _load_network() -> Any:
    model = np.frombuffer(_read_file(RECOGNITION_MODEL_FILE), np.uint8)
    return cv2.FaceRecognizerSF.create("onnx", model, np.empty(0, np.uint8))


@cache
def _load_rendered_face() -> NDArray[np.float32]:
    return np.array(json.loads(_read_file(RENDERED_FACE_FILE))["embedding"], np.float32)


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise NotFoundError(f"{path} is missing: install gorggle again")
    return path.read_bytes()


def _get_five_points(landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the eyes, the nose and the corners of the mouth, from left to right in the image."""
    eyes = [landmarks[eye].mean(axis=0) for eye in (LEFT_EYE, RIGHT_EYE)]
    return np.array([*eyes, *landmarks[[NOSE, *MOUTH_CORNERS]]], np.float64)


def _get_outside_share(frame: NDArray[np.uint8], to_aligned: NDArray[np.float64]) -> float:
    """Return the share of the aligned image that lies outside of the frame."""
    height, width = frame.shape
    to_frame = cv2.invertAffineTransform(to_aligned)
    grid = np.stack(np.meshgrid(*[np.linspace(0, ALIGNED_PX - 1, 8)] * 2), axis=-1).reshape(-1, 2)
    x, y = (grid @ to_frame[:, :2].T + to_frame[:, 2]).T
    return float(np.mean((x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)))
