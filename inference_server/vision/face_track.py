"""The track of one face: position, appearance and velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gorggle_server.vision.mouth_cropper import (
    MOUTH_POINTS,
    STABLE_POINTS,
    FrameRegion,
    estimate_similarity,
    load_mean_face,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gorggle_server.vision.face_detector import DetectedFace
    from gorggle_server.vision.face_geometry import BoundingBox

# If the face moves by more than this many face widths, or its size changes by more than this factor, from frame to
# frame, the detector must verify it.
MAX_TRUSTED_SHIFT = 0.4
MAX_TRUSTED_GROWTH = 1.35

# Correlation of a head's patch with the previous frame stays above 0.9 in motion and speech. Below the first threshold
# the detector must verify the face; below the second, compared with the last verified patch, it is another person.
# Patches include hair and some background, because smooth skin alone has too little texture. Landmarks jitter, so the
# maximum correlation within a small shift is used.
MIN_TRUSTED_CORRELATION = 0.85
SAME_PERSON_CORRELATION = 0.6
PATCH_PX, PATCH_WARPED_PX, PATCH_SHIFT_PX = 24, 144, 3
PATCH_LEFT, PATCH_TOP, PATCH_SIDE = -3, -23, 264  # in the canvas of the mean face

# A person who returns to the same position keeps the track: at most this many box sides away, and so much larger or smaller.
MAX_RETURN_DISTANCE = 0.75
MAX_RETURN_GROWTH = 1.6

# A detection at another roll than the face's is too imprecise to verify it.
MAX_ROLL_DIFFERENCE_DEG = 15.0

# If the fitted face is further than this (in face widths) from the box used, or rolled further from the roll used,
# landmarks are fitted again. A face that moves further per step is searched at its predicted position, a slower one at its last position, because the velocity
# estimate is noisy.
REFINE_SHIFT = 0.06
REFINE_ROLL_DEG = 10.0

# Below this presence, MediaPipe's own threshold, the detector must verify a face, and a new one is not tracked.
MIN_PRESENCE = 0.5

# On a skipped frame the mouth is interpolated, if its acceleration puts the error below this many eye distances plus
# this share of the movement (fast movement is blurred anyway).
MAX_INTERPOLATION_ERROR = 0.008
MAX_RELATIVE_ERROR = 0.05

# iBUG order.
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)


@dataclass(eq=False)
class FaceObservation:
    """A face on one frame.

    Attributes:
        landmarks: float32 (68, 2), pixels, x before y.
        box: in pixels.
        roll_deg: clockwise in the image.
        patch: a small aligned image of the head, compared to recognise the person.
        presence: probability that there is a face, as the landmark model estimates it.
    """

    landmarks: NDArray[np.float32]
    box: BoundingBox
    roll_deg: float
    patch: NDArray[np.float32]
    presence: float = 1.0

    @property
    def mouth_centre(self) -> complex:
        """Centre of the mouth in pixels, x + iy."""
        return _centroid(self.landmarks[MOUTH_POINTS])

    @property
    def eye_distance(self) -> float:
        """Distance between the eyes in pixels."""
        return abs(_centroid(self.landmarks[RIGHT_EYE]) - _centroid(self.landmarks[LEFT_EYE]))

    def similarity(self, other: FaceObservation) -> float:
        """Return the correlation of the patches, -1 to 1."""
        inner = other.patch[PATCH_SHIFT_PX:-PATCH_SHIFT_PX, PATCH_SHIFT_PX:-PATCH_SHIFT_PX]
        return float(cv2.matchTemplate(self.patch, inner, cv2.TM_CCOEFF_NORMED).max())

    def landmark_distance(self, other: FaceObservation) -> float:
        """Return the mean distance of the landmarks, relative to the side of the box."""
        distance = np.linalg.norm(self.landmarks - other.landmarks, axis=1).mean()
        return float(distance) / max(self.box.side, 1.0)


@dataclass(eq=False)
class Track:
    """A tracked face: its latest observation, and the latest one verified by the detector.

    Attributes:
        velocity: of the mouth between the last two observations, pixels per frame, x + iy.
        velocity_frames: frames between these observations; 0 if the velocity is unknown.
    """

    track_id: int
    face: FaceObservation
    confirmed: FaceObservation
    last_check: int
    misses: int = 0
    is_doubtful: bool = False
    mismatched_fits: int = 0
    velocity: complex = 0j
    velocity_frames: int = 0

    @property
    def is_visible(self) -> bool:
        """Whether ``face`` is its position on the current frame."""
        return self.misses == 0 and not self.is_doubtful

    @property
    def is_predictable(self) -> bool:
        """Whether the face is visible and its velocity known."""
        return self.is_visible and self.velocity_frames > 0

    @property
    def box(self) -> BoundingBox:
        """The last known box."""
        return self.face.box

    def predict_box(self, frames: int) -> BoundingBox:
        """Predict the box after a number of frames at constant velocity."""
        way = frames * self.velocity if self.velocity_frames else 0j
        return self.box.translate(way) if abs(way) > REFINE_SHIFT * self.box.side else self.box

    def needs_verification(self, face: FaceObservation) -> bool:
        """Return whether a fitted face has moved, grown or changed so much that the detector must verify it."""
        return (
            face.presence < MIN_PRESENCE
            or face.box.distance(self.box) > MAX_TRUSTED_SHIFT * self.box.side
            or size_ratio(face.box, self.box) > MAX_TRUSTED_GROWTH
            or face.similarity(self.face) < MIN_TRUSTED_CORRELATION
        )

    def has_similar_roll(self, found: DetectedFace) -> bool:
        """Return whether a detection was made at about the face's roll."""
        return abs(found.search_roll_deg - self.face.roll_deg) <= MAX_ROLL_DIFFERENCE_DEG

    def has_returned(self, face: FaceObservation) -> bool:
        """Return whether a face has the position and appearance of this lost one."""
        return (
            face.box.distance(self.confirmed.box) <= MAX_RETURN_DISTANCE * face.box.side
            and size_ratio(face.box, self.confirmed.box) <= MAX_RETURN_GROWTH
            and face.similarity(self.confirmed) >= SAME_PERSON_CORRELATION
        )

    def can_interpolate_to(self, face: FaceObservation) -> bool:
        """Return whether the mouth can be interpolated on the frame between the last one and ``face``."""
        way = face.mouth_centre - self.face.mouth_centre
        # Two velocities give the second derivative; half of it is the deviation of the middle from the straight line.
        bend = abs(way / 2 - self.velocity) / (2 + self.velocity_frames)
        return (
            self.velocity_frames > 0
            and bend <= MAX_INTERPOLATION_ERROR * face.eye_distance + MAX_RELATIVE_ERROR * abs(way)
        )

    def advance(self, face: FaceObservation, frames: int) -> None:
        """Record an observation a number of frames after the last one."""
        self.velocity, self.velocity_frames = (face.mouth_centre - self.face.mouth_centre) / frames, frames
        self.face = face

    def confirm(self, face: FaceObservation) -> None:
        """Record an observation verified by the detector; a new one has no known velocity."""
        if face is not self.face:
            self.velocity, self.velocity_frames = 0j, 0
        self.face = self.confirmed = face
        self.misses, self.is_doubtful, self.mismatched_fits = 0, False, 0


def size_ratio(one: BoundingBox, other: BoundingBox) -> float:
    """Return the ratio of the larger to the smaller side, at least 1."""
    small, large = sorted((one.side, other.side))
    return large / max(small, 1e-6)


def extract_patch(frame: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an aligned 24 x 24 image of the head, with hair and some background."""
    to_canvas = estimate_similarity(
        landmarks[STABLE_POINTS].astype(np.float64), load_mean_face()[STABLE_POINTS]
    )
    to_patch = (to_canvas - [[0, 0, PATCH_LEFT], [0, 0, PATCH_TOP]]) * (PATCH_WARPED_PX / PATCH_SIDE)
    warped = FrameRegion.around(frame, landmarks).warp(to_patch, PATCH_WARPED_PX, cv2.BORDER_REPLICATE)
    return cv2.resize(warped, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA).astype(np.float32)


def _centroid(points: NDArray[np.float32]) -> complex:
    """Return the mean of points (N, 2) as x + iy."""
    x, y = np.add.reduce(points) / len(points)
    return complex(x, y)
