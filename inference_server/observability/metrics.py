"""What the server counts and times, for Prometheus. Names follow its conventions: base units, ``_total`` for counters.

Nothing here tells what anybody said: no words, no names of files, no callers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from gorggle_server.admission.controller import AdmissionController
from gorggle_server.errors import GorggleError
from gorggle_server.observability.stream_metrics import StreamMetrics
from gorggle_server.timebase import FRAME_RATE_HZ
from gorggle_server.types import Event, Finished, Segment

# Calls last from milliseconds (a refusal) to hours (a stream); a batch takes milliseconds to seconds.
_CALL_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)
_BATCH_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
_BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class ServerMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self.on_device_failure: Callable[[], None] = lambda: None
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        info = Gauge("gorggle_build_info", "Always 1; tells the version", ["version"], registry=self.registry)
        info.labels(version).set(1)
        self._ready = Gauge("gorggle_up", "1 while calls are served", registry=self.registry)
        self._streams = Gauge(
            "gorggle_active_streams", "Recognition calls being served", registry=self.registry
        )
        self._places = Gauge(
            "gorggle_max_streams", "Recognition calls that may be served at once", registry=self.registry
        )
        self._tasks = Gauge("gorggle_event_loop_tasks", "Tasks on the event loop", registry=self.registry)
        self._loop_lag = Histogram(
            "gorggle_event_loop_lag_seconds",
            "How late the event loop was, looked at four times a second",
            buckets=_BATCH_BUCKETS_S,
            registry=self.registry,
        )
        self._calls = Counter(
            "gorggle_grpc_requests", "Calls that have ended", ["method", "code"], registry=self.registry
        )
        self._errors = Counter(
            "gorggle_errors",
            "Errors that calls ended with, by their class",
            ["error"],
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "gorggle_grpc_request_duration_seconds",
            "How long calls took",
            ["method"],
            buckets=_CALL_BUCKETS_S,
            registry=self.registry,
        )
        self._media_seconds = Counter(
            "gorggle_media_processed_seconds", "Media read to its end", registry=self.registry
        )
        self._segments = Counter("gorggle_segments", "Final segments", ["modality"], registry=self.registry)
        self._waiting = Gauge(
            "gorggle_queue_depth", "Utterances waiting for the device", registry=self.registry
        )
        self._wait_seconds = Histogram(
            "gorggle_queue_wait_seconds",
            "How long utterances waited for the device",
            ["result"],
            buckets=_BATCH_BUCKETS_S,
            registry=self.registry,
        )
        self._batch_windows = Histogram(
            "gorggle_encode_batch_size",
            "Utterances read together",
            buckets=_BATCH_SIZES,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "gorggle_encode_duration_seconds",
            "How long encoding a batch took",
            buckets=_BATCH_BUCKETS_S,
            registry=self.registry,
        )
        self._step_windows = Histogram(
            "gorggle_decode_batch_size",
            "Utterances searched together",
            buckets=_BATCH_SIZES,
            registry=self.registry,
        )
        self._step_seconds = Histogram(
            "gorggle_decode_step_duration_seconds",
            "How long one step of a search took",
            buckets=_STEP_BUCKETS_S,
            registry=self.registry,
        )
        self._live_streams = Gauge("gorggle_live_streams", "Live streams being read", registry=self.registry)
        self._live_demand = Gauge(
            "gorggle_live_device_load",
            "Share of the device's time that the live streams are expected to take",
            registry=self.registry,
        )
        self._processor_demand = Gauge(
            "gorggle_live_cpu_load",
            "Processors that the live streams are expected to keep busy, decoding, seeing, hearing and reading",
            registry=self.registry,
        )
        self._interpreter_demand = Gauge(
            "gorggle_live_gil_load",
            "Of these, what the server's own process is expected to take, whose threads share Python's lock",
            registry=self.registry,
        )
        self._dropped = Counter(
            "gorggle_requests_dropped", "Utterances given up", ["cause"], registry=self.registry
        )
        self._device_seconds = Counter(
            "gorggle_device_busy_seconds",
            "Time that reading utterances took the device",
            registry=self.registry,
        )
        self._read_seconds = Counter(
            "gorggle_decoded_media_seconds",
            "Media in the utterances that were read, interim readings included",
            registry=self.registry,
        )

        # There from the start: an alert cannot see a counter rise that was not there before.
        self._errors.labels("internal")
        for cause in ("cancelled", "late", "failed"):
            self._dropped.labels(cause)
        self.streams = StreamMetrics(self.registry)

    def bind_admission(self, admission: AdmissionController) -> None:
        """Read what live streams need of the device from there whenever it is asked for."""
        self._live_streams.set_function(lambda: admission.live_streams)
        self._live_demand.set_function(lambda: admission.expected_device_load)
        self._processor_demand.set_function(lambda: admission.expected_cpu_load)
        self._interpreter_demand.set_function(lambda: admission.expected_gil_load)

    def track_event_loop_tasks(self, count: Callable[[], int]) -> None:
        """Read the number of tasks on the event loop from there whenever it is asked for."""
        self._tasks.set_function(count)

    def observe_event_loop_lag(self, seconds: float) -> None:
        """The event loop was late by so much."""
        self._loop_lag.observe(seconds)

    def set_serving(self, *, ready: bool, max_streams: int) -> None:
        """Calls are served from now on, or no longer."""
        self._ready.set(ready)
        self._places.set(max_streams)

    def track_active_streams(self, count: Callable[[], int]) -> None:
        """Read the number of recognition calls from there whenever it is asked for."""
        self._streams.set_function(count)

    def observe_request(self, method: str, code: str, duration_s: float) -> None:
        """A call ended with a status."""
        self._calls.labels(method, code).inc()
        self._call_seconds.labels(method).observe(duration_s)

    def count_error(self, error: Exception) -> None:
        """A call failed; errors that nobody planned count as one."""
        self._errors.labels(type(error).__name__ if isinstance(error, GorggleError) else "internal").inc()

    def count_event(self, event: Event) -> None:
        """A stream said something."""
        if isinstance(event, Segment) and event.is_final:
            self._segments.labels(event.modality.value).inc()
        elif isinstance(event, Finished):
            self._media_seconds.inc(event.duration_s)

    # ---------------------------------------------------------------- the scheduler's part (``SchedulerObserver``)

    def set_queue_depth(self, windows: int) -> None:
        """So many utterances wait for the device."""
        self._waiting.set(windows)

    def observe_queue_wait(self, seconds: float, *, interim: bool) -> None:
        """An utterance's turn has come."""
        self._wait_seconds.labels("interim" if interim else "final").observe(seconds)

    def observe_encode(self, windows: int, seconds: float) -> None:
        """The device has encoded utterances together."""
        self._batch_windows.observe(windows)
        self._batch_seconds.observe(seconds)

    def observe_decode_step(self, windows: int, seconds: float) -> None:
        """The device has searched utterances one unit further."""
        self._step_windows.observe(windows)
        self._step_seconds.observe(seconds)

    def count_drop(self, cause: str) -> None:
        """An utterance was given up."""
        self._dropped.labels(cause).inc()
        if cause == "failed":
            self.on_device_failure()

    def observe_result(self, frames: int, seconds: float, *, stream: Hashable) -> None:
        """An utterance was read, and took the device so long."""
        self._device_seconds.inc(seconds)
        self._read_seconds.inc(frames / FRAME_RATE_HZ)
