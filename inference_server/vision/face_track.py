"""One person who is followed: where the face is, what it looks like, and how it moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gorggle_server.vision.mouth_cropper import (
    MOUTH_POINTS,
    STABLE_POINTS,
    estimate_similarity,
    load_mean_face,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gorggle_server.vision.face_detector import BoundingBox

# Movement from frame to frame, in face widths: beyond this (or a change of size) the detector must confirm the face.
MAX_TRUSTED_SHIFT = 0.4
MAX_TRUSTED_GROWTH = 1.35

# A head looks like itself on the frame before: in motion and in speech the correlation stays above 0.9. Below the
# first the detector must confirm it. Between detections a head turns: below the second it is someone else's. Hair and
# what is behind the head are compared too: the skin alone may be so even that little but the open mouth can be seen.
# Landmarks tremble, so the best correlation within a small shift counts.
MIN_TRUSTED_CORRELATION = 0.85
SAME_PERSON_CORRELATION = 0.6
PATCH_PX, PATCH_WARPED_PX, PATCH_SHIFT_PX = 24, 144, 3
PATCH_LEFT, PATCH_TOP, PATCH_SIDE = -3, -23, 264  # in the canvas of the mean face

# A face that lies further than this from where it was looked for, in face widths, is looked for again from there. One
# that moves so far from look to look is looked for where it will be; a slower one where it was, for the pace trembles.
REFINE_SHIFT = 0.06

# On a frame that was left out a mouth is half-way between where it was before and after, as far as it keeps its pace.
# It does unless the change of pace puts it further off than this, in distances between the eyes, and this share of
# its way besides: what moves fast is blurred.
MAX_INTERPOLATION_ERROR = 0.008
MAX_RELATIVE_ERROR = 0.05

# iBUG order.
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)


@dataclass(eq=False)
class FaceObservation:
    """A face on one frame. ``patch`` shows it upright and small: its looks, to be compared."""

    landmarks: NDArray[np.float32]
    box: BoundingBox
    patch: NDArray[np.float32]

    @property
    def mouth_centre(self) -> complex:
        """The middle of the mouth, pixels: x + iy."""
        return _centroid(self.landmarks[MOUTH_POINTS])

    @property
    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return abs(_centroid(self.landmarks[RIGHT_EYE]) - _centroid(self.landmarks[LEFT_EYE]))

    def similarity(self, other: FaceObservation) -> float:
        """Correlation of the looks, -1 to 1."""
        inner = other.patch[PATCH_SHIFT_PX:-PATCH_SHIFT_PX, PATCH_SHIFT_PX:-PATCH_SHIFT_PX]
        return float(cv2.matchTemplate(self.patch, inner, cv2.TM_CCOEFF_NORMED).max())

    def landmark_distance(self, other: FaceObservation) -> float:
        """Mean distance of the landmarks, in shares of the box."""
        distance = np.linalg.norm(self.landmarks - other.landmarks, axis=1).mean()
        return float(distance) / max(self.box.side, 1.0)


@dataclass(eq=False)
class Track:
    """A person followed: the face as last found, and as last confirmed by the detector.

    Attributes:
        velocity: the mouth's way from frame to frame when it was last found twice, pixels: x + iy.
        velocity_frames: how many frames lay between the two; 0 where the pace is not known.
    """

    track_id: int
    face: FaceObservation
    confirmed: FaceObservation
    score: float
    last_check: int
    misses: int = 0
    is_doubtful: bool = False
    mismatched_fits: int = 0
    velocity: complex = 0j
    velocity_frames: int = 0

    @property
    def is_visible(self) -> bool:
        """Whether the face is where ``face`` says."""
        return self.misses == 0 and not self.is_doubtful

    @property
    def is_predictable(self) -> bool:
        """Whether the face is seen, and how it moves is known."""
        return self.is_visible and self.velocity_frames > 0

    @property
    def box(self) -> BoundingBox:
        """Where the face was last."""
        return self.face.box

    def predict_box(self, frames: int) -> BoundingBox:
        """Where the face is so many frames later if it keeps its pace."""
        way = frames * self.velocity if self.velocity_frames else 0j
        return self.box.translate(way) if abs(way) > REFINE_SHIFT * self.box.side else self.box

    def needs_verification(self, face: FaceObservation) -> bool:
        """Whether what was found where this face should be has leapt there, or looks like something else."""
        return (
            face.box.distance(self.box) > MAX_TRUSTED_SHIFT * self.box.side
            or size_ratio(face.box, self.box) > MAX_TRUSTED_GROWTH
            or face.similarity(self.face) < MIN_TRUSTED_CORRELATION
        )

    def can_interpolate_to(self, face: FaceObservation) -> bool:
        """Whether, with the face found two frames later, the mouth was half-way on the frame in between."""
        way = face.mouth_centre - self.face.mouth_centre
        # Two paces give the second derivative; half of it is how far the middle lies off the straight line.
        bend = abs(way / 2 - self.velocity) / (2 + self.velocity_frames)
        return (
            self.velocity_frames > 0
            and bend <= MAX_INTERPOLATION_ERROR * face.eye_distance + MAX_RELATIVE_ERROR * abs(way)
        )

    def advance(self, face: FaceObservation, frames: int) -> None:
        """The face was found so many frames later."""
        self.velocity, self.velocity_frames = (face.mouth_centre - self.face.mouth_centre) / frames, frames
        self.face = face

    def confirm(self, face: FaceObservation, score: float) -> None:
        """The detector has found the face: the one that is followed, or another, whose pace is not known."""
        if face is not self.face:
            self.velocity, self.velocity_frames = 0j, 0
        self.face = self.confirmed = face
        self.score, self.misses, self.is_doubtful, self.mismatched_fits = score, 0, False, 0


def size_ratio(one: BoundingBox, other: BoundingBox) -> float:
    """How much larger the larger is, at least 1."""
    small, large = sorted((one.side, other.side))
    return large / max(small, 1e-6)


def extract_patch(frame: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The head upright in 24 x 24 pixels, with the hair and a little of what is behind."""
    to_canvas = estimate_similarity(
        landmarks[STABLE_POINTS].astype(np.float64), load_mean_face()[STABLE_POINTS]
    )
    to_patch = (to_canvas - [[0, 0, PATCH_LEFT], [0, 0, PATCH_TOP]]) * (PATCH_WARPED_PX / PATCH_SIDE)
    warped = cv2.warpAffine(
        frame, to_patch, (PATCH_WARPED_PX, PATCH_WARPED_PX), borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.resize(warped, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA).astype(np.float32)


def _centroid(points: NDArray[np.float32]) -> complex:
    """The mean of points (N, 2): x + iy."""
    x, y = np.add.reduce(points) / len(points)
    return complex(x, y)
