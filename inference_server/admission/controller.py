"""Whether this machine has time for one more live stream, by what those there are have been measured to take."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.errors import OverloadedError

# Measurements count for about so long: speech and silence of many streams even out over it.
_USAGE_TIME_CONSTANT_S = 30.0
# What is expected of a stream before it was measured weighs as much as so many seconds of one stream.
_PRIOR_WEIGHT_S = 10.0
# The expectation follows what is measured, over so many seconds of streams: what was learnt outlasts a quiet hour.
_WARMUP_S = 120.0
# A stream's first seconds say nothing of it: no utterance has come to its end. Of many that come at once they would say
# that a stream costs nothing, and ever more would be let in.
_STARTUP_GRACE_S = 5.0
# To look up what a process has used takes some microseconds, and the device's thread is here for every utterance.
_SAMPLING_INTERVAL_S = 0.5
RETRY_AFTER_S = 5.0


@dataclass(frozen=True)
class ResourceLimit:
    """What live streams may have of one resource.

    Attributes:
        capacity: seconds of it in every second, such as 0.7 of a device or 1.6 of two processors; 0: no limit.
        estimate: seconds of it that a second of a live stream takes, until that has been measured.
    """

    capacity: float
    estimate: float


class AdmissionController:
    """Admits live streams as long as this machine can be expected to keep up with all of them.

    A live stream brings a second of media every second and cannot wait, so what counts is how many seconds of the
    device, which reads, and of the processors, which decode, see and hear, a second of it takes. That is measured over
    all live streams but their first seconds, interim readings and silence included. One more is admitted where the streams there are and it would
    together take no more than the capacity of either. Whoever is over that is refused at once, which costs it a retry;
    let in, it would cost everyone their words in time.

    Streams that are not live are not counted: files are read as fast as there is time, fair queueing keeps them behind
    live streams that have had less of the device, and back-pressure slows their senders. May be used by all threads.
    """

    def __init__(
        self,
        device: ResourceLimit,
        processors: ResourceLimit = ResourceLimit(0.0, 0.0),
        device_processors: float = 0.0,
        interpreter: ResourceLimit = ResourceLimit(0.0, 0.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without streams.

        Args:
            device: the budget of the device's time.
            processors: the budget of the processors' time, of all of them together.
            device_processors: how many processors work while the device does: the threads of a model on the CPU.
            interpreter: the budget of what this process's own threads take for streams, which share Python's lock.
            clock: seconds.
        """
        self._device, self._processors = _UsageAccount(device), _UsageAccount(processors)
        self._interpreter = _UsageAccount(interpreter)
        self._device_processors, self._clock = device_processors, clock
        self._live: dict[Hashable, _StreamUsage] = {}
        self._known_at = self._metered_at = clock()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def admit_stream(self, stream: Hashable) -> Iterator[CpuTimer]:
        """Hold a live stream's place; gives what is to tell how much processor time it takes.

        Raises:
            OverloadedError: the machine would not keep up. The first stream is always let in.
        """
        with self._lock:
            self._advance()
            if self._live:
                self._device.check(len(self._live), "the device's time")
                self._processors.check(len(self._live), "the processors' time")
                self._interpreter.check(len(self._live), "one Python process's time")
            metered = self._live[stream] = _StreamUsage(CpuTimer(), self._known_at + _STARTUP_GRACE_S)
        try:
            yield metered.use
        finally:
            with self._lock:
                self._advance()
                if (left := self._live.pop(stream, None)) is not None:
                    self._meter(left)

    def record_device_time(self, stream: Hashable, device_s: float) -> None:
        """The device was busy with a stream's window for so long."""
        with self._lock:
            self._advance()
            if (metered := self._live.get(stream)) is not None and self._known_at >= metered.counts_from:
                self._device.charge(device_s)
                self._processors.charge(device_s * self._device_processors)

    @property
    def live_streams(self) -> int:
        """Live streams being read."""
        return len(self._live)

    @property
    def expected_device_load(self) -> float:
        """Seconds of the device that the live streams are expected to take in every second."""
        with self._lock:
            self._advance()
            return self._device.demand(len(self._live))

    @property
    def expected_cpu_load(self) -> float:
        """Seconds of all processors together that the live streams are expected to take in every second."""
        with self._lock:
            self._advance()
            return self._processors.demand(len(self._live))

    @property
    def expected_gil_load(self) -> float:
        """Seconds of this process's own threads that the live streams are expected to take in every second."""
        with self._lock:
            self._advance()
            return self._interpreter.demand(len(self._live))

    def _advance(self) -> None:
        """Let time pass: the past fades, and every live stream has lasted longer and taken more."""
        now = self._clock()
        elapsed_s, self._known_at = now - self._known_at, now
        settled = sum(now >= metered.counts_from for metered in self._live.values())
        for account in (self._device, self._processors, self._interpreter):
            account.advance(elapsed_s, settled)
        if now - self._metered_at >= _SAMPLING_INTERVAL_S:
            self._metered_at = now
            for metered in self._live.values():
                self._meter(metered)

    def _meter(self, metered: _StreamUsage) -> None:
        """Charge what a stream has used since it was looked at last, if it counts by now."""
        used_s, own_s = metered.used_since()
        if self._known_at >= metered.counts_from:
            self._processors.charge(used_s)
            self._interpreter.charge(own_s)


@dataclass
class _StreamUsage:
    """A live stream, from when it counts, and up to where its processor time is charged."""

    use: CpuTimer
    counts_from: float
    charged_s: float = 0.0
    own_charged_s: float = 0.0

    def used_since(self) -> tuple[float, float]:
        """Processor seconds since this was asked last: of all, and of this process's own thread."""
        before, self.charged_s = self.charged_s, self.use.seconds
        own_before, self.own_charged_s = self.own_charged_s, self.use.own_seconds
        return max(0.0, self.charged_s - before), max(0.0, self.own_charged_s - own_before)


class _UsageAccount:
    """What live streams took of one resource in the recent past, and what one is expected to take."""

    def __init__(self, budget: ResourceLimit) -> None:
        self._capacity, self._expected = budget.capacity, budget.estimate
        self._used_s = self._stream_s = 0.0

    def advance(self, elapsed_s: float, streams: int) -> None:
        """So much time has passed with so many streams that count."""
        kept = math.exp(-elapsed_s / _USAGE_TIME_CONSTANT_S)
        self._used_s *= kept
        self._stream_s = self._stream_s * kept + streams * _USAGE_TIME_CONSTANT_S * (1 - kept)
        learnt = 1 - math.exp(-elapsed_s * streams / _WARMUP_S)
        self._expected += learnt * (self._cost() - self._expected)

    def charge(self, used_s: float) -> None:
        """Streams have taken so much."""
        self._used_s += used_s

    def demand(self, streams: int) -> float:
        """What so many streams are expected to take in every second."""
        return streams * self._cost()

    def check(self, streams: int, what: str) -> None:
        """Refuse one more than so many streams where it would be too much."""
        expected = self.demand(streams + 1)
        if self._capacity and expected > self._capacity:
            raise OverloadedError(
                f"{streams} live streams are read, and one more would take {expected:.0%} of {what}, more than the "
                f"{self._capacity:.0%} that this server gives them: try again in {RETRY_AFTER_S:g} s, or on another "
                "server",
                RETRY_AFTER_S,
            )

    def _cost(self) -> float:
        """Seconds of the resource that a second of a live stream takes."""
        seen_s = self._used_s + self._expected * _PRIOR_WEIGHT_S
        return seen_s / (self._stream_s + _PRIOR_WEIGHT_S)
