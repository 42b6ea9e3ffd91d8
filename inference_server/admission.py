"""Whether the device has time for one more live stream, by what those there are have been measured to take."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator

from inference_server.errors import OverloadedError

# Measurements count for about so long: speech and silence of many streams even out over it.
_MEMORY_S = 30.0
# The estimate made before the first stream weighs as much as so many seconds of one stream.
_ESTIMATE_WEIGHT_S = 10.0
RETRY_AFTER_S = 5.0


class Admission:
    """Admits live streams as long as the device can be expected to keep up with all of them.

    A live stream brings a second of media every second and cannot wait, so what counts is how many seconds of the
    device a second of it takes. That is measured over all live streams, interim readings and silence included. One more
    is admitted where the streams there are and it would together take no more than the capacity. Whoever is over that is
    refused at once, which costs it a retry; let in, it would cost everyone their words in time.

    Streams that are not live are not counted: files are read as fast as there is time, fair queueing keeps them behind
    live streams that have had less of the device, and back-pressure slows their senders. May be used by all threads.
    """

    def __init__(self, capacity: float, estimate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without streams.

        Args:
            capacity: the share of the device's time that live streams may take, such as 0.7; 0: no limit.
            estimate: device seconds that a second of a live stream takes, until that has been measured.
            clock: seconds.
        """
        self._capacity, self._estimate, self._clock = capacity, estimate, clock
        self._live: set[Hashable] = set()
        self._device_s = self._stream_s = 0.0  # of the recent past
        self._known_at = clock()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def live_stream(self, stream: Hashable) -> Iterator[None]:
        """Hold a live stream's place.

        Raises:
            OverloadedError: the device would not keep up. The first stream is always let in.
        """
        with self._lock:
            self._advance()
            expected = (len(self._live) + 1) * self._cost()
            if self._live and self._capacity and expected > self._capacity:
                raise OverloadedError(
                    f"{len(self._live)} live streams are read, and one more would take {expected:.0%} of the device's "
                    f"time, more than the {self._capacity:.0%} that this server gives them: try again in "
                    f"{RETRY_AFTER_S:g} s, or on another server",
                    RETRY_AFTER_S,
                )
            self._live.add(stream)
        try:
            yield
        finally:
            with self._lock:
                self._advance()
                self._live.discard(stream)

    def charge(self, stream: Hashable, device_s: float) -> None:
        """The device was busy with a stream's window for so long."""
        with self._lock:
            self._advance()
            if stream in self._live:
                self._device_s += device_s

    @property
    def live_streams(self) -> int:
        """Live streams being read."""
        return len(self._live)

    @property
    def demand(self) -> float:
        """The share of the device's time that the live streams are expected to take."""
        with self._lock:
            self._advance()
            return len(self._live) * self._cost()

    def _cost(self) -> float:
        """Device seconds that a second of a live stream takes."""
        seen_s = self._device_s + self._estimate * _ESTIMATE_WEIGHT_S
        return seen_s / (self._stream_s + _ESTIMATE_WEIGHT_S)

    def _advance(self) -> None:
        """Let time pass: the past fades, and every live stream has lasted longer."""
        now = self._clock()
        kept = math.exp((self._known_at - now) / _MEMORY_S)
        self._device_s *= kept
        self._stream_s = self._stream_s * kept + len(self._live) * _MEMORY_S * (1 - kept)
        self._known_at = now
