"""Records the metrics and the trace of one stream."""

from __future__ import annotations

import contextvars
import time
from typing import Protocol

from gorggle_server.inference.scheduler import InferenceBackend
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.observability.stage_timer import StageTimer
from gorggle_server.types import Event, Finished


class StreamTrace(Protocol):
    """Trace of a recognition call."""

    def record_stages(self, timer: StageTimer) -> None:
        """Add the stages of the finished stream with their durations."""
        ...

    def set_attributes(self, **attributes: float | str) -> None:
        """Set attributes of the call's span."""
        ...

    def wrap_backend(self, backend: InferenceBackend) -> InferenceBackend:
        """Return a backend whose work is traced."""
        ...


# The trace of the current call; None if calls are not traced.
current_trace: contextvars.ContextVar[StreamTrace | None] = contextvars.ContextVar("trace", default=None)


class ObservedQueue(Protocol):
    """A stream's media queue."""

    @property
    def buffered_bytes(self) -> int:
        """Number of bytes in the queue."""
        ...

    @property
    def wait_time_s(self) -> float:
        """Total time that the stream has waited for its client."""
        ...


class StreamObserver:
    """Observes one stream from its first message to its end.

    Attributes:
        stage_timer: measures the stages of the stream.
    """

    def __init__(self, metrics: ServerMetrics, media_queue: ObservedQueue) -> None:
        self._metrics, self._media_queue = metrics, media_queue
        self._trace = current_trace.get()
        self._started_at = time.monotonic()
        self.stage_timer = StageTimer(metrics.streams, lambda: media_queue.wait_time_s)
        metrics.streams.add_queue(media_queue)

    def wrap_backend(self, backend: InferenceBackend) -> InferenceBackend:
        """Return the backend, traced if the call is traced."""
        return backend if self._trace is None else self._trace.wrap_backend(backend)

    def record_event(self, event: Event) -> None:
        """Record an event of the stream."""
        self._metrics.count_event(event)
        if isinstance(event, Finished):
            busy_s = time.monotonic() - self._started_at - self._media_queue.wait_time_s
            self._metrics.streams.observe_stream(event.duration_s, busy_s)
            if self._trace is not None:
                self._trace.set_attributes(media_s=event.duration_s, segments=event.segments)

    def close(self) -> None:
        """Record the end of the stream, successful or not."""
        self._metrics.streams.remove_queue(self._media_queue)
        if self._trace is not None:
            self._trace.record_stages(self.stage_timer)
