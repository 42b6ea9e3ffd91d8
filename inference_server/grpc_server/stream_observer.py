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

    def stages(self, clock: StageTimer) -> None:
        """The stream has ended; its stages took so long."""
        ...

    def set_attributes(self, **attributes: float | str) -> None:
        """Add to the call's span."""
        ...

    def backend(self, backend: InferenceBackend) -> InferenceBackend:
        """A backend whose work is traced."""
        ...


# The trace of the call that is being answered; None where calls are not traced.
current_trace: contextvars.ContextVar[StreamTrace | None] = contextvars.ContextVar("trace", default=None)


class Intake(Protocol):
    """Where a stream's media comes from."""

    @property
    def bytes_held(self) -> int:
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

    def __init__(self, measurements: ServerMetrics, intake: Intake) -> None:
        self._measurements, self._intake = measurements, intake
        self._trace = current_trace.get()
        self._began = time.monotonic()
        self.clock = StageTimer(measurements.of_streams, lambda: intake.wait_time_s)
        measurements.of_streams.holds(intake)

    def backend(self, backend: InferenceBackend) -> InferenceBackend:
        """The backend, traced where the call is."""
        return backend if self._trace is None else self._trace.backend(backend)

    def event(self, event: Event) -> None:
        """The stream said something."""
        self._measurements.event(event)
        if isinstance(event, Finished):
            busy_s = time.monotonic() - self._began - self._intake.wait_time_s
            self._measurements.of_streams.stream_ended(event.duration_s, busy_s)
            if self._trace is not None:
                self._trace.set_attributes(media_s=event.duration_s, segments=event.segments)

    def end(self) -> None:
        """The stream has ended, well or not."""
        self._measurements.of_streams.lets_go(self._intake)
        if self._trace is not None:
            self._trace.stages(self.clock)
