"""Records the metrics and the trace of one stream."""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING

from gorggle_server.events import Event, Finished
from gorggle_server.grpc_server.media_receiver import MediaQueue
from gorggle_server.inference.scheduler import SubmitFunction
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.observability.stage_timer import StageTimer

if TYPE_CHECKING:
    from gorggle_server.grpc_server.interceptors.tracing import CallTrace

# The trace of the current call; None if calls are not traced.
current_trace: contextvars.ContextVar[CallTrace | None] = contextvars.ContextVar("trace", default=None)


class StreamObserver:
    """Observes one stream from its first message to its end.

    Attributes:
        stage_timer: measures the stages of the stream.
    """

    def __init__(self, metrics: ServerMetrics, media_queue: MediaQueue) -> None:
        self._metrics, self._media_queue = metrics, media_queue
        self._trace = current_trace.get()
        self._started_at = time.monotonic()
        self.stage_timer = StageTimer(metrics.streams, lambda: media_queue.wait_time_s)
        metrics.streams.add_queue(media_queue)

    def wrap_submit(self, submit: SubmitFunction) -> SubmitFunction:
        """Return the function, traced if the call is traced."""
        return submit if self._trace is None else self._trace.wrap_submit(submit)

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
