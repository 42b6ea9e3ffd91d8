"""Boxes and poses of faces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from gorggle_server.vision.mouth_cropper import estimate_similarity, load_mean_face

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The box of a face in the canvas of the mean face: the one that dlib's predictor was trained with.
CANVAS_BOX_CENTRE = np.array([129.0, 125.5])
CANVAS_BOX_SIDE = 131.0


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
    """Where a face is: its box, and the roll in degrees, clockwise in the image."""

    box: BoundingBox
    roll_deg: float


def estimate_pose(landmarks: NDArray[np.floating[Any]]) -> FacePose:
    """Return the box and the roll of a face with these landmarks (68, 2)."""
    return estimate_pose_from_points(landmarks.astype(np.float64), load_mean_face())


def estimate_box(landmarks: NDArray[np.floating[Any]]) -> BoundingBox:
    """Return the box of a face with these landmarks (68, 2)."""
    return estimate_pose(landmarks).box


def estimate_pose_from_points(points: NDArray[np.float64], canvas_points: NDArray[np.float64]) -> FacePose:
    """Return the pose of a face from points (N, 2) in the frame and in the canvas of the mean face."""
    to_canvas = estimate_similarity(points, canvas_points)
    factor = complex(to_canvas[0, 0], to_canvas[1, 0])
    if abs(factor) < 1e-9:
        x, y = points.mean(axis=0)
        return FacePose(BoundingBox.from_centre((float(x), float(y)), 0.0), 0.0)
    centre = (complex(*(CANVAS_BOX_CENTRE - to_canvas[:, 2]))) / factor
    box = BoundingBox.from_centre((centre.real, centre.imag), CANVAS_BOX_SIDE / abs(factor))
    return FacePose(box, -math.degrees(math.atan2(factor.imag, factor.real)))


def rotate_to_centre(
    centre: complex, size: tuple[int, int], roll_deg: float, scale: float = 1.0
) -> NDArray[np.float64]:
    """Return the transform (2, 3) that undoes the roll and moves ``centre`` to that of an image (width, height)."""
    matrix = np.asarray(cv2.getRotationMatrix2D((centre.real, centre.imag), roll_deg, scale), np.float64)
    matrix[:, 2] += np.array([(size[0] - 1) / 2 - centre.real, (size[1] - 1) / 2 - centre.imag])
    return matrix
