"""Searches whole frames for faces: coarsely and finely, upright and rolled."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from gorggle_server.vision.face_detector import COARSE_SIDE_PX, DetectedFace, FaceDetector, get_fine_side

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

# YuNet's scores, 0 to 1. A candidate of a search is detected again at a favourable scale and roll, and is a face if it is
# confident there.
CANDIDATE_SCORE = 0.3
CONFIDENT_SCORE = 0.7

# YuNet finds faces rolled by up to 30 degrees. So every second coarse detection is for faces rolled by this angle, to
# either side in turn, as is a fine one that finds no upright face.
SEARCH_ROLL_DEG = 35.0
COARSE_ROLLS_DEG = (0.0, SEARCH_ROLL_DEG, 0.0, -SEARCH_ROLL_DEG)

# Intersection over union of two boxes of one face.
SAME_FACE_IOU = 0.3


class FaceSearch:
    """Searches the frames of one video for faces. Not thread-safe.

    Args:
        detector: detects faces.
    """

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self._coarse_rolls_deg = cycle(COARSE_ROLLS_DEG)

    def detect_coarsely(self, frame: NDArray[np.uint8]) -> list[DetectedFace]:
        """Detect large faces, upright ones and rolled ones in turn."""
        return self._detector.detect(frame, COARSE_SIDE_PX, CANDIDATE_SCORE, next(self._coarse_rolls_deg))

    def search(self, frame: NDArray[np.uint8], *, rolled_too: bool) -> list[DetectedFace]:
        """Detect faces of all sizes; if there is no upright one, also strongly rolled ones if ``rolled_too``."""
        sides = {get_fine_side(frame), COARSE_SIDE_PX}
        faces = self._detect_at(frame, sides, 0.0)
        if rolled_too and all(face.score < CONFIDENT_SCORE for face in faces):
            for roll_deg in (SEARCH_ROLL_DEG, -SEARCH_ROLL_DEG):
                faces += self._detect_at(frame, sides, roll_deg)
        return _select_distinct(faces)

    def _detect_at(
        self, frame: NDArray[np.uint8], long_sides_px: Iterable[int], roll_deg: float
    ) -> list[DetectedFace]:
        return [
            face
            for side in long_sides_px
            for face in self._detector.detect(frame, side, CANDIDATE_SCORE, roll_deg)
        ]

    def refine(self, frame: NDArray[np.uint8], candidate: DetectedFace) -> DetectedFace | None:
        """Detect a candidate again at a favourable scale and roll; None if it is not a face."""
        for offset_deg in (0.0, SEARCH_ROLL_DEG, -SEARCH_ROLL_DEG):
            roll_deg = candidate.roll_deg + offset_deg
            found = self._detector.detect_near(frame, candidate.box, CONFIDENT_SCORE, roll_deg)
            if found is not None:
                return found
        return None


def _select_distinct(faces: Iterable[DetectedFace]) -> list[DetectedFace]:
    """Return the detection with the highest score of each face, largest first."""
    distinct: list[DetectedFace] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(face.box.iou(other.box) < SAME_FACE_IOU for other in distinct):
            distinct.append(face)
    return sorted(distinct, key=lambda face: -face.box.side)
