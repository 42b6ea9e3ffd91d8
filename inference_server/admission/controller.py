"""Admission control for live streams, based on the measured cost of the streams being served."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import Enum

from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.admission.retry_delay import CAPACITY_RETRY_DELAY_S
from gorggle_server.errors import OverloadedError

# Time constant of the measurements: speech and silence of many streams average out over it.
_USAGE_TIME_CONSTANT_S = 30.0
# The prior cost of a stream weighs as much as this many seconds of measurements of one stream.
_PRIOR_WEIGHT_S = 10.0
# The prior follows the measurements over this many stream-seconds, so it outlasts a quiet hour.
_WARMUP_S = 120.0
# The first seconds of a stream are not measured: no utterance has ended yet. When many streams start at once, they
# would suggest that a stream costs nothing, and too many would be admitted.
_STARTUP_GRACE_S = 5.0
# Reading a process's CPU time takes some microseconds, and the device thread calls this for every utterance.
_SAMPLING_INTERVAL_S = 0.5


class Resource(Enum):
    """What live streams take a share of, as named in errors."""

    DEVICE = "device time"
    CPU = "CPU time"
    GIL = "the CPU time of one Python process"


@dataclass(frozen=True)
class ResourceLimit:
    """Budget of live streams for one resource.

    Attributes:
        capacity: seconds of the resource per second, such as 0.7 of a device or 1.6 of two CPUs; 0: no limit.
        estimate: seconds of it that a second of a live stream takes, until that was measured.
    """

    capacity: float
    estimate: float


class AdmissionController:
    """Admits live streams while this machine can be expected to keep up with all of them.

    A live stream delivers a second of media every second and cannot wait. Its cost is the device time (inference) and the CPU
    time (decoding, face tracking, voice activity) of one second of media, measured over all live streams except for their
    first seconds, interim results and silence included. A stream is admitted if all streams together are expected to stay
    within the capacity of every resource. Refusing a stream costs its client a retry; admitting it would delay every stream.

    Streams that are not live are not counted: fair queueing places them after live streams that have had less device time, and
    back-pressure slows their senders. Thread-safe.
    """

    def __init__(
        self,
        device: ResourceLimit,
        cpu: ResourceLimit = ResourceLimit(0.0, 0.0),
        device_cpu_threads: float = 0.0,
        gil: ResourceLimit = ResourceLimit(0.0, 0.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without streams.

        Args:
            device: budget of device time.
            cpu: budget of CPU time, of all CPUs together.
            device_cpu_threads: CPUs in use while the device works: the threads of a model on the CPU.
            gil: budget of the CPU time of this process's own threads, which share the GIL.
            clock: returns seconds.
        """
        limits = {Resource.DEVICE: device, Resource.CPU: cpu, Resource.GIL: gil}
        self._accounts = {resource: _UsageAccount(limit) for resource, limit in limits.items()}
        self._device_cpu_threads, self._clock = device_cpu_threads, clock
        self._live: dict[Hashable, _StreamUsage] = {}
        self._updated_at = self._sampled_at = clock()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def admit_stream(self, stream: Hashable) -> Iterator[CpuTimer]:
        """Admit a live stream; yield the timer that records its CPU time.

        Raises:
            OverloadedError: the machine would not keep up. The first stream is always admitted.
        """
        with self._lock:
            self._advance()
            if self._live:
                for resource, account in self._accounts.items():
                    account.check(len(self._live), resource)
            metered = self._live[stream] = _StreamUsage(CpuTimer(), self._updated_at + _STARTUP_GRACE_S)
        try:
            yield metered.cpu_timer
        finally:
            with self._lock:
                self._advance()
                if (left := self._live.pop(stream, None)) is not None:
                    self._charge_cpu_time(left)

    def record_device_time(self, stream: Hashable, device_s: float) -> None:
        """Record device time spent on an input of a stream."""
        with self._lock:
            self._advance()
            if (metered := self._live.get(stream)) is not None and self._updated_at >= metered.measured_from:
                self._accounts[Resource.DEVICE].charge(device_s)
                self._accounts[Resource.CPU].charge(device_s * self._device_cpu_threads)

    @property
    def live_streams(self) -> int:
        """Number of live streams being served."""
        return len(self._live)

    def get_expected_load(self, resource: Resource) -> float:
        """Return the seconds of a resource per second, over all CPUs, that the live streams are expected to take."""
        with self._lock:
            self._advance()
            return self._accounts[resource].demand(len(self._live))

    def _advance(self) -> None:
        """Update all accounts to the current time."""
        now = self._clock()
        elapsed_s, self._updated_at = now - self._updated_at, now
        settled = sum(now >= metered.measured_from for metered in self._live.values())
        for account in self._accounts.values():
            account.advance(elapsed_s, settled)
        if now - self._sampled_at >= _SAMPLING_INTERVAL_S:
            self._sampled_at = now
            for metered in self._live.values():
                self._charge_cpu_time(metered)

    def _charge_cpu_time(self, usage: _StreamUsage) -> None:
        """Charge the CPU time of a stream since the last call, if it is past its startup grace period."""
        used_s, own_s = usage.pop_uncharged_s()
        if self._updated_at >= usage.measured_from:
            self._accounts[Resource.CPU].charge(used_s)
            self._accounts[Resource.GIL].charge(own_s)


@dataclass
class _StreamUsage:
    """A live stream: when its measurement starts, and the CPU time already charged."""

    cpu_timer: CpuTimer
    measured_from: float
    charged_cpu_s: float = 0.0
    charged_gil_s: float = 0.0

    def pop_uncharged_s(self) -> tuple[float, float]:
        """Return CPU seconds since the last call: in total, and of this process's own thread."""
        before, self.charged_cpu_s = self.charged_cpu_s, self.cpu_timer.total_s
        own_before, self.charged_gil_s = self.charged_gil_s, self.cpu_timer.thread_s
        return max(0.0, self.charged_cpu_s - before), max(0.0, self.charged_gil_s - own_before)


class _UsageAccount:
    """Use of one resource by live streams in the recent past, and the expected cost of one stream."""

    def __init__(self, budget: ResourceLimit) -> None:
        self._capacity, self._prior_cost = budget.capacity, budget.estimate
        self._used_s = self._stream_s = 0.0

    def advance(self, elapsed_s: float, streams: int) -> None:
        """Advance time with a number of measured streams."""
        kept = math.exp(-elapsed_s / _USAGE_TIME_CONSTANT_S)
        self._used_s *= kept
        self._stream_s = self._stream_s * kept + streams * _USAGE_TIME_CONSTANT_S * (1 - kept)
        learnt = 1 - math.exp(-elapsed_s * streams / _WARMUP_S)
        self._prior_cost += learnt * (self._cost_per_stream() - self._prior_cost)

    def charge(self, used_s: float) -> None:
        """Add used seconds."""
        self._used_s += used_s

    def demand(self, streams: int) -> float:
        """Return the expected use of a number of streams, in seconds per second."""
        return streams * self._cost_per_stream()

    def check(self, streams: int, resource: Resource) -> None:
        """Raise OverloadedError if one more stream would exceed the capacity."""
        expected = self.demand(streams + 1)
        if self._capacity and expected > self._capacity:
            raise OverloadedError(
                f"{streams} live streams are served; one more would take {expected:.0%} of {resource.value}, more than the "
                f"limit of {self._capacity:.0%}: try again in {CAPACITY_RETRY_DELAY_S:g} s, or on another "
                "server",
                CAPACITY_RETRY_DELAY_S,
            )

    def _cost_per_stream(self) -> float:
        """Return seconds of the resource per second of a live stream."""
        seen_s = self._used_s + self._prior_cost * _PRIOR_WEIGHT_S
        return seen_s / (self._stream_s + _PRIOR_WEIGHT_S)
