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
        cpu: ResourceLimit = ResourceLimit(0.0, 0.0),
        device_cpu_threads: float = 0.0,
        gil: ResourceLimit = ResourceLimit(0.0, 0.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without streams.

        Args:
            device: the budget of the device's time.
            cpu: the budget of the processors' time, of all of them together.
            device_cpu_threads: how many processors work while the device does: the threads of a model on the CPU.
            gil: the budget of what this process's own threads take for streams, which share Python's lock.
            clock: seconds.
        """
        self._device, self._cpu = _UsageAccount(device), _UsageAccount(cpu)
        self._gil = _UsageAccount(gil)
        self._device_cpu_threads, self._clock = device_cpu_threads, clock
        self._live: dict[Hashable, _StreamUsage] = {}
        self._updated_at = self._sampled_at = clock()
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
                self._cpu.check(len(self._live), "the processors' time")
                self._gil.check(len(self._live), "one Python process's time")
            metered = self._live[stream] = _StreamUsage(CpuTimer(), self._updated_at + _STARTUP_GRACE_S)
        try:
            yield metered.cpu_timer
        finally:
            with self._lock:
                self._advance()
                if (left := self._live.pop(stream, None)) is not None:
                    self._charge_cpu_time(left)

    def record_device_time(self, stream: Hashable, device_s: float) -> None:
        """The device was busy with a stream's window for so long."""
        with self._lock:
            self._advance()
            if (metered := self._live.get(stream)) is not None and self._updated_at >= metered.measured_from:
                self._device.charge(device_s)
                self._cpu.charge(device_s * self._device_cpu_threads)

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
            return self._cpu.demand(len(self._live))

    @property
    def expected_gil_load(self) -> float:
        """Seconds of this process's own threads that the live streams are expected to take in every second."""
        with self._lock:
            self._advance()
            return self._gil.demand(len(self._live))

    def _advance(self) -> None:
        """Let time pass: the past fades, and every live stream has lasted longer and taken more."""
        now = self._clock()
        elapsed_s, self._updated_at = now - self._updated_at, now
        settled = sum(now >= metered.measured_from for metered in self._live.values())
        for account in (self._device, self._cpu, self._gil):
            account.advance(elapsed_s, settled)
        if now - self._sampled_at >= _SAMPLING_INTERVAL_S:
            self._sampled_at = now
            for metered in self._live.values():
                self._charge_cpu_time(metered)

    def _charge_cpu_time(self, usage: _StreamUsage) -> None:
        """Charge what a stream has used since it was looked at last, if it counts by now."""
        used_s, own_s = usage.pop_uncharged_s()
        if self._updated_at >= usage.measured_from:
            self._cpu.charge(used_s)
            self._gil.charge(own_s)


@dataclass
class _StreamUsage:
    """A live stream, from when it counts, and up to where its processor time is charged."""

    cpu_timer: CpuTimer
    measured_from: float
    charged_cpu_s: float = 0.0
    charged_gil_s: float = 0.0

    def pop_uncharged_s(self) -> tuple[float, float]:
        """Processor seconds since this was asked last: of all, and of this process's own thread."""
        before, self.charged_cpu_s = self.charged_cpu_s, self.cpu_timer.total_s
        own_before, self.charged_gil_s = self.charged_gil_s, self.cpu_timer.thread_s
        return max(0.0, self.charged_cpu_s - before), max(0.0, self.charged_gil_s - own_before)


class _UsageAccount:
    """What live streams took of one resource in the recent past, and what one is expected to take."""

    def __init__(self, budget: ResourceLimit) -> None:
        self._capacity, self._prior_cost = budget.capacity, budget.estimate
        self._used_s = self._stream_s = 0.0

    def advance(self, elapsed_s: float, streams: int) -> None:
        """So much time has passed with so many streams that count."""
        kept = math.exp(-elapsed_s / _USAGE_TIME_CONSTANT_S)
        self._used_s *= kept
        self._stream_s = self._stream_s * kept + streams * _USAGE_TIME_CONSTANT_S * (1 - kept)
        learnt = 1 - math.exp(-elapsed_s * streams / _WARMUP_S)
        self._prior_cost += learnt * (self._cost_per_stream() - self._prior_cost)

    def charge(self, used_s: float) -> None:
        """Streams have taken so much."""
        self._used_s += used_s

    def demand(self, streams: int) -> float:
        """What so many streams are expected to take in every second."""
        return streams * self._cost_per_stream()

    def check(self, streams: int, resource: str) -> None:
        """Refuse one more than so many streams where it would be too much."""
        expected = self.demand(streams + 1)
        if self._capacity and expected > self._capacity:
            raise OverloadedError(
                f"{streams} live streams are read, and one more would take {expected:.0%} of {resource}, more than the "
                f"{self._capacity:.0%} that this server gives them: try again in {RETRY_AFTER_S:g} s, or on another "
                "server",
                RETRY_AFTER_S,
            )

    def _cost_per_stream(self) -> float:
        """Seconds of the resource that a second of a live stream takes."""
        seen_s = self._used_s + self._prior_cost * _PRIOR_WEIGHT_S
        return seen_s / (self._stream_s + _PRIOR_WEIGHT_S)
