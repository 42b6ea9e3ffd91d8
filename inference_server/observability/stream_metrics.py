"""What is counted and timed of streams: how long their stages take, whether they keep pace, what they hold, what they see."""

from __future__ import annotations

import threading
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gorggle_server.observability.stage_timer import PipelineStage

# A step is 0.4 s of media: what takes a stage longer does not keep pace.
_STEP_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5, 20)
_REAL_TIME_FACTORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2, 3, 5, 10)


class ByteQueue(Protocol):
    """An intake of a stream's media."""

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait in it."""
        ...


class StreamMetrics:
    """The metrics of streams, in the server's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queues: set[ByteQueue] = set()
        self._lock = threading.Lock()  # streams come and go while the metrics are asked for
        self._stage_seconds = Histogram(
            "gorggle_stage_duration_seconds",
            "How long a step of 0.4 s of media kept a stage busy",
            ["stage"],
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        )
        self._real_time_factor = Histogram(
            "gorggle_real_time_factor",
            "Seconds that a finished stream took for each second of its media, without waiting for its client",
            buckets=_REAL_TIME_FACTORS,
            registry=registry,
        )
        self._frames = Counter("gorggle_frames_processed", "Frames searched for faces", registry=registry)
        self._frames_with_faces = Counter(
            "gorggle_frames_with_faces", "Frames with at least one face", registry=registry
        )
        self._faces = Counter("gorggle_faces_detected", "Faces in all frames", registry=registry)
        held = Gauge(
            "gorggle_input_buffer_bytes",
            "Media received that its stream has not taken yet",
            registry=registry,
        )
        held.set_function(self._count_buffered_bytes)

    def add_queue(self, queue: ByteQueue) -> None:
        """Count what waits in an intake from now on."""
        with self._lock:
            self._queues.add(queue)

    def remove_queue(self, queue: ByteQueue) -> None:
        """Count it no more."""
        with self._lock:
            self._queues.discard(queue)

    def _count_buffered_bytes(self) -> int:
        with self._lock:
            return sum(intake.buffered_bytes for intake in self._queues)

    def observe_stream(self, media_s: float, busy_s: float) -> None:
        """A stream was read to its end, which took so long once its media was there."""
        if media_s > 0:
            self._real_time_factor.observe(busy_s / media_s)

    # ------------------------------------------------------------------------------------ the part of ``StageObserver``

    def observe_stage(self, stage: PipelineStage, seconds: float) -> None:
        """A step kept a stage busy for so long."""
        self._stage_seconds.labels(stage.value).observe(seconds)

    def count_frame(self, faces: int) -> None:
        """A frame was searched for faces."""
        self._frames.inc()
        self._faces.inc(faces)
        if faces:
            self._frames_with_faces.inc()
