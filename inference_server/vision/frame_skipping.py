"""Tracks faces on every second frame and interpolates between: landmarks are most of the cost of vision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gorggle_server.vision.face_tracker import FaceTracker, TrackedFace


@dataclass(frozen=True, eq=False)
class AnalyzedFrame:
    """A frame, uint8 (H, W) grayscale, and its faces, largest first."""

    index: int
    pixels: NDArray[np.uint8]
    faces: list[TrackedFace]


class FrameSkipper:
    """Tracks faces on every second frame where their motion is predictable, and interpolates between.

    Results are at most one frame late. No frame is skipped while there is no face, a face is doubtful or a detection is
    due.

    Args:
        tracker: owned by this object from now on.
        skip_frames: False for low latency: every frame is processed at once.
    """

    def __init__(self, tracker: FaceTracker, *, skip_frames: bool = True) -> None:
        self._tracker, self._skip_frames = tracker, skip_frames
        self._held: tuple[int, NDArray[np.uint8]] | None = None

    def push(self, frame: NDArray[np.uint8], index: int) -> list[AnalyzedFrame]:
        """Process the next frame, uint8 (H, W) grayscale; return the completed frames in order."""
        if self._held is None:
            if self._skip_frames and self._tracker.can_skip(frame, index):
                self._held = index, frame
                return []
            return [AnalyzedFrame(index, frame, self._tracker.update(frame, index))]
        if frame is self._held[1] or index != self._held[0] + 1:
            return [*self.flush(), *self.push(frame, index)]
        (held_index, held), self._held = self._held, None
        before, now = self._tracker.update_pair(held, frame, index)
        return [AnalyzedFrame(held_index, held, before), AnalyzedFrame(index, frame, now)]

    def flush(self) -> list[AnalyzedFrame]:
        """Return the pending frame, if any, at the end of the video."""
        if self._held is None:
            return []
        (index, frame), self._held = self._held, None
        return [AnalyzedFrame(index, frame, self._tracker.update(frame, index))]
