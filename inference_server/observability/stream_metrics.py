"""Metrics of streams: stage durations, real-time factor, buffered bytes, faces."""

from __future__ import annotations

import threading
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gorggle_server.observability.stage_timer import PipelineStage

# A step is 0.4 s of media: a stage that takes longer does not keep up with live media.
_STEP_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5, 20)
_REAL_TIME_FACTORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2, 3, 5, 10)


class ByteQueue(Protocol):
    """Input queue of a stream's media."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes in the queue."""


class StreamMetrics:
    """Metrics of all streams, in the server's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queues: set[ByteQueue] = set()
        self._lock = threading.Lock()  # streams start and end while metrics are collected
        self._stage_seconds = Histogram(
            "gorggle_stage_duration_seconds",
            "Busy time of a stage per step of 0.4 s of media",
            ["stage"],
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        )
        self._real_time_factor = Histogram(
            "gorggle_real_time_factor",
            "Processing time per second of media of a finished stream, without waiting for its client",
            buckets=_REAL_TIME_FACTORS,
            registry=registry,
        )
        self._frames = Counter("gorggle_frames_processed", "Frames analysed for faces", registry=registry)
        self._frames_with_faces = Counter(
            "gorggle_frames_with_faces", "Frames with at least one face", registry=registry
        )
        self._faces = Counter("gorggle_faces_detected", "Faces in all frames", registry=registry)
        buffered_bytes = Gauge(
            "gorggle_input_buffer_bytes",
            "Received media that its stream has not processed yet",
            registry=registry,
        )
        buffered_bytes.set_function(self._count_buffered_bytes)

    def add_queue(self, queue: ByteQueue) -> None:
        """Include a queue in the buffered bytes."""
        with self._lock:
            self._queues.add(queue)

    def remove_queue(self, queue: ByteQueue) -> None:
        """Exclude a queue from the buffered bytes."""
        with self._lock:
            self._queues.discard(queue)

    def _count_buffered_bytes(self) -> int:
        with self._lock:
            return sum(queue.buffered_bytes for queue in self._queues)

    def observe_stream(self, media_s: float, busy_s: float) -> None:
        """Record a finished stream: its duration and its processing time without waiting for input."""
        if media_s > 0:
            self._real_time_factor.observe(busy_s / media_s)

    def observe_stage(self, stage: PipelineStage, seconds: float) -> None:
        """Record how long a stage was busy for one step."""
        self._stage_seconds.labels(stage.value).observe(seconds)

    def count_frame(self, faces: int) -> None:
        """Count a frame and the faces detected in it."""
        self._frames.inc()
        self._faces.inc(faces)
        if faces:
            self._frames_with_faces.inc()
