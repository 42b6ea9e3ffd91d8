"""One stream as metrics and traces see it."""

from __future__ import annotations

import contextvars
import time
from typing import Protocol

from gorggle_server.inference.scheduler import InferenceBackend
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.observability.stage_timer import StageTimer
from gorggle_server.types import Event, Finished


class StreamTrace(Protocol):
    """The trace of a call that reads a stream."""

    def record_stages(self, timer: StageTimer) -> None:
        """The stream has ended; its stages took so long."""
        ...

    def set_attributes(self, **attributes: float | str) -> None:
        """Add to the call's span."""
        ...

    def wrap_backend(self, backend: InferenceBackend) -> InferenceBackend:
        """A backend whose work is traced."""
        ...


# The trace of the call that is being answered; None where calls are not traced.
current_trace: contextvars.ContextVar[StreamTrace | None] = contextvars.ContextVar("trace", default=None)


class ObservedQueue(Protocol):
    """Where a stream's media comes from."""

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait in it."""
        ...

    @property
    def wait_time_s(self) -> float:
        """For how many seconds the stream has waited for its client."""
        ...


class StreamObserver:
    """Watches one stream from its first message to its end.

    Attributes:
        clock: times the stream's stages.
    """

    def __init__(self, metrics: ServerMetrics, media_queue: ObservedQueue) -> None:
        self._metrics, self._media_queue = metrics, media_queue
        self._trace = current_trace.get()
        self._started_at = time.monotonic()
        self.stage_timer = StageTimer(metrics.streams, lambda: media_queue.wait_time_s)
        metrics.streams.add_queue(media_queue)

    def wrap_backend(self, backend: InferenceBackend) -> InferenceBackend:
        """The backend, traced where the call is."""
        return backend if self._trace is None else self._trace.wrap_backend(backend)

    def record_event(self, event: Event) -> None:
        """The stream said something."""
        self._metrics.count_event(event)
        if isinstance(event, Finished):
            busy_s = time.monotonic() - self._started_at - self._media_queue.wait_time_s
            self._metrics.streams.observe_stream(event.duration_s, busy_s)
            if self._trace is not None:
                self._trace.set_attributes(media_s=event.duration_s, segments=event.segments)

    def close(self) -> None:
        """The stream has ended, well or not."""
        self._metrics.streams.remove_queue(self._media_queue)
        if self._trace is not None:
            self._trace.record_stages(self.stage_timer)
