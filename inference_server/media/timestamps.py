"""Normalizes media timestamps to a clock that starts at zero and has no jumps."""

from __future__ import annotations

from collections import deque

# Maximum gap: a still image may last this long without a new frame. A larger jump is a forged or restarted clock, and
# the stream continues without a gap.
MAX_GAP_S = 60.0

# Timestamps that step back by less are out of order; by more, the clock was reset.
MAX_STEP_BACK_S = 1.0

MAX_OFFSETS = 8


class StreamClock:
    """The state of one stream's clock.

    Attributes:
        end_s: end of the stream so far, seconds from zero.
        offset_s: current offset of its timestamps.
    """

    def __init__(self) -> None:
        self.end_s = 0.0
        self.offset_s: float | None = None


class TimestampNormalizer:
    """Maps video and audio timestamps to a common clock.

    If a stream jumps by more than the maximum gap, its offset is changed so that it continues at the current time. If
    the other stream then jumps too, it gets the same offset, so that both stay synchronized; likewise a stream that
    returns from a single forged timestamp.
    """

    def __init__(self, zero_s: float) -> None:
        self.video = StreamClock()
        self.audio = StreamClock()
        self._offsets: deque[float] = deque([-zero_s], maxlen=MAX_OFFSETS)

    def normalize(self, stream: StreamClock, time_s: float) -> float:
        """Return a timestamp of this stream in seconds from zero. The caller must update ``stream.end_s``."""
        if stream.offset_s is None:
            stream.offset_s = self._offsets[0]
        if not self._is_plausible(stream, time_s + stream.offset_s):
            stream.offset_s = self._find_offset(stream, time_s)
        return time_s + stream.offset_s

    def _find_offset(self, line: StreamClock, time_s: float) -> float:
        for offset_s in reversed(self._offsets):
            if self._is_plausible(line, time_s + offset_s):
                return offset_s
        offset_s = self._now_s() - time_s
        self._offsets.append(offset_s)
        return offset_s

    def _is_plausible(self, line: StreamClock, placed_s: float) -> bool:
        return line.end_s - MAX_STEP_BACK_S <= placed_s <= self._now_s() + MAX_GAP_S

    def _now_s(self) -> float:
        return max(self.video.end_s, self.audio.end_s)
