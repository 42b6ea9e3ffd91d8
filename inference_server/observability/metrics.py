"""Prometheus metrics of the server. Names follow its conventions: base units, ``_total`` for counters.

No metric contains words, file names or callers.
"""

from __future__ import annotations

import functools
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
from gorggle_server.timebase import frames_to_seconds
from gorggle_server.types import Event, Finished, Segment

# Calls last from milliseconds (a refusal) to hours (a stream); a batch takes milliseconds to seconds.
_CALL_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)
_BATCH_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
_BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class SchedulerMetrics:
    """Metrics of the device scheduler: its ``SchedulerObserver``.

    Attributes:
        on_device_failure: called when inference has failed.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.on_device_failure: Callable[[], None] = lambda: None
        counter = functools.partial(Counter, registry=registry)
        batch_sizes = functools.partial(Histogram, registry=registry, buckets=_BATCH_SIZES)
        durations = functools.partial(Histogram, registry=registry, buckets=_BATCH_BUCKETS_S)
        self._queue_depth = Gauge(
            "gorggle_queue_depth", "Utterances waiting for the device", registry=registry
        )
        self._queue_wait_s = durations(
            "gorggle_queue_wait_seconds", "Time that utterances waited for the device", ["result"]
        )
        self._encode_batch = batch_sizes("gorggle_encode_batch_size", "Utterances encoded together")
        self._encode_s = durations("gorggle_encode_duration_seconds", "Time to encode a batch")
        self._decode_batch = batch_sizes("gorggle_decode_batch_size", "Utterances decoded together")
        self._decode_step_s = Histogram(
            "gorggle_decode_step_duration_seconds",
            "Time of one beam search step",
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        )
        self._dropped = counter(
            "gorggle_requests_dropped", "Utterances cancelled, expired or failed", ["cause"]
        )
        self._device_busy_s = counter("gorggle_device_busy_seconds", "Device time spent on utterances")
        self._decoded_media_s = counter(
            "gorggle_decoded_media_seconds", "Media in the decoded utterances, interim results included"
        )
        # Create the series at the start: an alert cannot detect the increase of a counter that did not exist before.
        for cause in ("cancelled", "late", "failed"):
            self._dropped.labels(cause)

    def set_queue_depth(self, windows: int) -> None:
        """Set the number of waiting utterances."""
        self._queue_depth.set(windows)

    def observe_queue_wait(self, seconds: float, *, interim: bool) -> None:
        """Record how long an utterance waited."""
        self._queue_wait_s.labels("interim" if interim else "final").observe(seconds)

    def observe_encode(self, windows: int, seconds: float) -> None:
        """Record an encoded batch."""
        self._encode_batch.observe(windows)
        self._encode_s.observe(seconds)

    def observe_decode_step(self, windows: int, seconds: float) -> None:
        """Record one beam search step."""
        self._decode_batch.observe(windows)
        self._decode_step_s.observe(seconds)

    def count_drop(self, cause: str) -> None:
        """Count an utterance without a result."""
        self._dropped.labels(cause).inc()
        if cause == "failed":
            self.on_device_failure()

    def observe_result(self, frames: int, seconds: float, *, stream: Hashable) -> None:
        """Record a decoded utterance and its share of the device time."""
        self._device_busy_s.inc(seconds)
        self._decoded_media_s.inc(frames_to_seconds(frames))


class ServerMetrics:
    """All metrics of one server.

    Attributes:
        registry: holds them.
        streams: metrics of streams.
        scheduler: metrics of the device scheduler.
    """

    def __init__(self, version: str) -> None:
        registry = self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.streams, self.scheduler = StreamMetrics(registry), SchedulerMetrics(registry)
        gauge = functools.partial(Gauge, registry=registry)
        counter = functools.partial(Counter, registry=registry)
        gauge("gorggle_build_info", "Always 1; the label is the version", ["version"]).labels(version).set(1)
        self._up = gauge("gorggle_up", "1 while calls are served")
        self._active_streams = gauge("gorggle_active_streams", "Recognition calls being served")
        self._max_streams = gauge("gorggle_max_streams", "Limit of concurrent recognition calls")
        self._event_loop_tasks = gauge("gorggle_event_loop_tasks", "Tasks on the event loop")
        self._event_loop_lag_s = Histogram(
            "gorggle_event_loop_lag_seconds",
            "Lag of the event loop, sampled four times per second",
            buckets=_BATCH_BUCKETS_S,
            registry=registry,
        )
        self._requests = counter("gorggle_grpc_requests", "Calls that have ended", ["method", "code"])
        self._request_s = Histogram(
            "gorggle_grpc_request_duration_seconds",
            "Duration of calls",
            ["method"],
            buckets=_CALL_BUCKETS_S,
            registry=registry,
        )
        self._errors = counter("gorggle_errors", "Errors that ended calls, by class", ["error"])
        self._errors.labels("internal")  # see SchedulerMetrics
        self._media_s = counter("gorggle_media_processed_seconds", "Media processed to its end")
        self._segments = counter("gorggle_segments", "Final segments", ["modality"])
        self._live_streams = gauge("gorggle_live_streams", "Live streams being served")
        self._live_device_load = gauge(
            "gorggle_live_device_load", "Share of device time that live streams are expected to take"
        )
        self._live_cpu_load = gauge("gorggle_live_cpu_load", "CPUs that live streams are expected to use")
        self._live_gil_load = gauge(
            "gorggle_live_gil_load",
            "CPUs that live streams are expected to use in the server process, whose threads share the GIL",
        )

    def bind_admission(self, admission: AdmissionController) -> None:
        """Export the load of live streams from the admission controller."""
        self._live_streams.set_function(lambda: admission.live_streams)
        self._live_device_load.set_function(lambda: admission.expected_device_load)
        self._live_cpu_load.set_function(lambda: admission.expected_cpu_load)
        self._live_gil_load.set_function(lambda: admission.expected_gil_load)

    def track_event_loop_tasks(self, count: Callable[[], int]) -> None:
        """Export the number of tasks on the event loop from a function."""
        self._event_loop_tasks.set_function(count)

    def track_active_streams(self, count: Callable[[], int]) -> None:
        """Export the number of recognition calls from a function."""
        self._active_streams.set_function(count)

    def observe_event_loop_lag(self, seconds: float) -> None:
        """Record a sample of the event loop's lag."""
        self._event_loop_lag_s.observe(seconds)

    def set_serving(self, *, ready: bool, max_streams: int) -> None:
        """Record whether calls are served."""
        self._up.set(ready)
        self._max_streams.set(max_streams)

    def observe_request(self, method: str, code: str, duration_s: float) -> None:
        """Record a call that has ended with a status."""
        self._requests.labels(method, code).inc()
        self._request_s.labels(method).observe(duration_s)

    def count_error(self, error: Exception) -> None:
        """Count an error that ended a call; unexpected errors share one label."""
        self._errors.labels(type(error).__name__ if isinstance(error, GorggleError) else "internal").inc()

    def count_event(self, event: Event) -> None:
        """Count an event of a stream."""
        if isinstance(event, Segment) and event.is_final:
            self._segments.labels(event.modality.value).inc()
        elif isinstance(event, Finished):
            self._media_s.inc(event.duration_s)
