"""Prometheus metrics of the server. Names follow its conventions: base units, ``_total`` for counters.

No metric contains words, file names or callers.
"""

from __future__ import annotations

import functools

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from gorggle_server.admission.controller import AdmissionController, Resource
from gorggle_server.errors import GorggleError
from gorggle_server.events import Event, Finished, Segment
from gorggle_server.inference.scheduler_metrics import DURATION_BUCKETS_S, SchedulerMetrics
from gorggle_server.observability.stream_metrics import StreamMetrics

# Calls last from milliseconds (a refusal) to hours (a stream).
_CALL_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)


class ServerMetrics:
    """All metrics of one server.

    Attributes:
        registry: holds them.
        streams: metrics of streams.
        scheduler: metrics of the device scheduler.
        active_streams, event_loop_tasks, event_loop_lag_s: to be set by their owners.
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
        self.active_streams = gauge("gorggle_active_streams", "Recognition calls being served")
        self._max_streams = gauge("gorggle_max_streams", "Limit of concurrent recognition calls")
        self.event_loop_tasks = gauge("gorggle_event_loop_tasks", "Tasks on the event loop")
        self.event_loop_lag_s = Histogram(
            "gorggle_event_loop_lag_seconds",
            "Lag of the event loop, sampled four times per second",
            buckets=DURATION_BUCKETS_S,
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
        self._live_loads = {
            Resource.DEVICE: gauge(
                "gorggle_live_device_load", "Share of device time that live streams are expected to take"
            ),
            Resource.CPU: gauge("gorggle_live_cpu_load", "CPUs that live streams are expected to use"),
            Resource.GIL: gauge(
                "gorggle_live_gil_load",
                "CPUs that live streams are expected to use in the server process, whose threads share the GIL",
            ),
        }

    def bind_admission(self, admission: AdmissionController) -> None:
        """Export the load of live streams from the admission controller."""
        self._live_streams.set_function(lambda: admission.live_streams)
        for resource, load in self._live_loads.items():
            load.set_function(functools.partial(admission.get_expected_load, resource))

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
