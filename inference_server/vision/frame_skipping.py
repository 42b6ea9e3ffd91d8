"""Follows faces in strides of two frames: landmarks cost most of what seeing costs, and a head keeps its pace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gorggle_server.vision.face_tracker import FaceTracker, TrackedFace


@dataclass(frozen=True, eq=False)
class AnalyzedFrame:
    """A frame and the faces on it, largest first.

    Attributes:
        index: the frame's number.
        pixels: uint8 (H, W), grey.
    """

    index: int
    pixels: NDArray[np.uint8]
    faces: list[TrackedFace]


class FrameSkipper:
    """Follows faces on every second frame where they keep their pace; what lies between is half-way.

    The faces on a frame are known with the next one at the latest. Frames are looked at one by one while nobody is
    followed, where a face is in doubt, and where the detector is due.

    Args:
        tracker: follows the faces; of no use elsewhere from then on.
        skip_frames: false for what cannot wait: every frame is looked at as it comes.
    """

    def __init__(self, tracker: FaceTracker, *, skip_frames: bool = True) -> None:
        self._tracker, self._skip_frames = tracker, skip_frames
        self._held: tuple[int, NDArray[np.uint8]] | None = None

    def push(self, frame: NDArray[np.uint8], index: int) -> list[AnalyzedFrame]:
        """Take in the next frame, uint8 (H, W), grey, with its number; give those that are known now, in order."""
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
        """The video ends: the frame still held, if there is one."""
        if self._held is None:
            return []
        (index, frame), self._held = self._held, None
        return [AnalyzedFrame(index, frame, self._tracker.update(frame, index))]
