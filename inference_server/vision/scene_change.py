"""Detects cuts: frames that differ from the previous one far more than the frames before did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Frames are compared at this many points per side, which takes 7 µs.
SAMPLES_PER_SIDE = 24
# A cut changes the gray levels (0 to 255) by this on average, and by this factor more than recent frames: with a still camera
# frames differ by less than 3 levels, with one that shakes by up to 30.
MIN_CHANGE = 10.0
MIN_RELATIVE_CHANGE = 4.0
# Weight of the latest frame in the mean change of recent ones.
RECENCY = 0.2


class SceneChangeDetector:
    """Detects cuts in one video, frame by frame. Dissolves are not detected."""

    def __init__(self) -> None:
        self._samples: NDArray[np.float32] | None = None
        self._mean_change: float | None = None

    def push(self, frame: NDArray[np.uint8]) -> bool:
        """Return whether the next frame, uint8 (H, W), is the first one of a scene; the very first one is not."""
        rows, columns = (max(1, side // SAMPLES_PER_SIDE) for side in frame.shape)
        samples = frame[::rows, ::columns].astype(np.float32)
        before, self._samples = self._samples, samples
        if before is None:
            return False
        if before.shape != samples.shape:
            return True
        change = float(np.abs(samples - before).mean())
        if self._mean_change is None:  # nothing to compare the first change with
            self._mean_change = change
        is_change = change > max(MIN_CHANGE, MIN_RELATIVE_CHANGE * self._mean_change)
        self._mean_change += RECENCY * (change - self._mean_change)
        return is_change
