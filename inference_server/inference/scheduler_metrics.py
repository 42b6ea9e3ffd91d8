"""Prometheus metrics of the device scheduler."""

from __future__ import annotations

import functools
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# A batch takes milliseconds to seconds.
DURATION_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
_BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class SchedulerMetrics:
    """Metrics of one scheduler; it sets them itself, except for the counter of dropped utterances.

    Attributes:
        on_device_failure: called when inference has failed.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.on_device_failure: Callable[[], None] = lambda: None
        counter = functools.partial(Counter, registry=registry)
        batch_sizes = functools.partial(Histogram, registry=registry, buckets=_BATCH_SIZES)
        durations = functools.partial(Histogram, registry=registry, buckets=DURATION_BUCKETS_S)
        self.queue_depth = Gauge(
            "gorggle_queue_depth", "Utterances waiting for the device", registry=registry
        )
        self.queue_wait_s = durations(
            "gorggle_queue_wait_seconds", "Time that utterances waited for the device", ["result"]
        )
        self.encode_batch = batch_sizes("gorggle_encode_batch_size", "Utterances encoded together")
        self.encode_s = durations("gorggle_encode_duration_seconds", "Time to encode a batch")
        self.decode_batch = batch_sizes("gorggle_decode_batch_size", "Utterances decoded together")
        self.decode_step_s = Histogram(
            "gorggle_decode_step_duration_seconds",
            "Time of one beam search step",
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        )
        self._dropped = counter("gorggle_requests_dropped", "Utterances cancelled or failed", ["cause"])
        self.device_busy_s = counter("gorggle_device_busy_seconds", "Device time spent on utterances")
        self.decoded_media_s = counter(
            "gorggle_decoded_media_seconds", "Media in the decoded utterances, interim results included"
        )
        # Create the series at the start: an alert cannot detect the increase of a counter that did not exist before.
        for cause in ("cancelled", "failed"):
            self._dropped.labels(cause)

    def count_drop(self, cause: str) -> None:
        """Count an utterance without a result."""
        self._dropped.labels(cause).inc()
        if cause == "failed":
            self.on_device_failure()
