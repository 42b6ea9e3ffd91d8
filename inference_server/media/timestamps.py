"""The media's timestamps on one clock that starts at zero and never leaps."""

from __future__ import annotations

from collections import deque

# The longest gap that is believed. A still picture may stand so long without a new frame; a larger leap is a forged
# or restarted clock, and what follows it is taken to follow at once.
MAX_GAP_S = 60.0

# Timestamps that step back by less are out of order; by more, the clock was set back.
MAX_STEP_BACK_S = 1.0

MAX_OFFSETS = 8


class StreamClock:
    """One stream's place on the clock.

    Attributes:
        end_s: up to where the stream is known, seconds from zero.
        offset_s: what is added to its timestamps at present.
    """

    def __init__(self) -> None:
        self.end_s = 0.0
        self.offset_s: float | None = None


class TimestampNormalizer:
    """Places timestamps of pictures and sound on a common time.

    Where a stream leaps further than a gap can be, its offset changes so that it goes on where the clock stands. The
    other stream, when it leaps likewise, takes over the same offset, and so both stay in step; so does a stream that
    comes back from a single forged timestamp.
    """

    def __init__(self, zero_s: float) -> None:
        self.video = StreamClock()
        self.audio = StreamClock()
        self.clock_jumps = 0
        self._offsets: deque[float] = deque([-zero_s], maxlen=MAX_OFFSETS)

    def normalize(self, stream: StreamClock, time_s: float) -> float:
        """Seconds from zero of a timestamp of this stream. The caller moves ``line.end_s`` on."""
        if stream.offset_s is None:
            stream.offset_s = self._offsets[0]
        if not self._is_plausible(stream, time_s + stream.offset_s):
            stream.offset_s = self._find_offset(stream, time_s)
        return time_s + stream.offset_s

    def _find_offset(self, line: StreamClock, time_s: float) -> float:
        for offset_s in reversed(self._offsets):
            if self._is_plausible(line, time_s + offset_s):
                return offset_s
        self.clock_jumps += 1
        offset_s = self._now_s() - time_s
        self._offsets.append(offset_s)
        return offset_s

    def _is_plausible(self, line: StreamClock, placed_s: float) -> bool:
        return line.end_s - MAX_STEP_BACK_S <= placed_s <= self._now_s() + MAX_GAP_S

    def _now_s(self) -> float:
        return max(self.video.end_s, self.audio.end_s)
