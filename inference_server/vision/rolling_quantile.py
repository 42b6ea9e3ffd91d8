"""The quantiles of the latest values of a curve, as it grows."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque


class RollingQuantile:
    """The latest values, in order of their size: so that asking for quantiles after every value costs little.

    Args:
        window: how many are kept.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._latest)

    def push(self, value: float) -> None:
        """Take in the next value, and forget the oldest where there are too many."""
        if len(self._latest) == self._window:
            del self._ordered[bisect_left(self._ordered, self._latest.popleft())]
        self._latest.append(value)
        insort(self._ordered, value)

    def quantile(self, share: float) -> float:
        """The value that this share of the others, 0 to 1, lies below: on the line between the two nearest."""
        place = share * (len(self._ordered) - 1)
        below = int(place)
        low, high = self._ordered[below], self._ordered[min(below + 1, len(self._ordered) - 1)]
        return low + (high - low) * (place - below)
