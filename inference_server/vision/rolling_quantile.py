"""Quantiles over a sliding window."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque


class RollingQuantile:
    """Quantiles of the latest values, kept sorted so that a quantile after every value is cheap.

    Args:
        window: maximum number of values.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._latest)

    def push(self, value: float) -> None:
        """Add a value; drop the oldest if the window is full."""
        if len(self._latest) == self._window:
            del self._ordered[bisect_left(self._ordered, self._latest.popleft())]
        self._latest.append(value)
        insort(self._ordered, value)

    def quantile(self, share: float) -> float:
        """Return the quantile at ``share``, 0 to 1, with linear interpolation."""
        position = share * (len(self._ordered) - 1)
        below = int(position)
        low, high = self._ordered[below], self._ordered[min(below + 1, len(self._ordered) - 1)]
        return low + (high - low) * (position - below)
