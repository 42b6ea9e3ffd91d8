"""Time spent in each stage of a stream, for metrics and traces."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from gorggle_server.observability.stream_metrics import StreamMetrics

T = TypeVar("T")


class PipelineStage(StrEnum):
    """Stages of a stream's own thread and its decoder; queueing and inference are measured by the scheduler."""

    DECODE = "decode"
    VISION = "vision"
    VAD = "vad"


@dataclass
class Span:
    """First and last activity of a stage, in nanoseconds since 1970, and its busy seconds in between."""

    first_ns: int
    last_ns: int = 0
    busy_s: float = 0.0


class StageTimer:
    """Times the stages of one stream, on its thread.

    Args:
        observer: receives the durations of each step; None for no metrics.
        get_input_wait_s: returns the seconds that the stream has waited for its client, which belong to no stage.
    """

    def __init__(
        self, observer: StreamMetrics | None = None, get_input_wait_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._observer, self._get_input_wait_s = observer, get_input_wait_s
        self._step_s: dict[PipelineStage, float] = {}
        self._external_s: dict[PipelineStage, float] = {}
        self.spans: dict[PipelineStage, Span] = {}
        self.frames = self.frames_with_faces = 0

    @contextlib.contextmanager
    def measure(self, stage: PipelineStage) -> Iterator[None]:
        """Attribute the time inside the block to a stage."""
        span = self.spans.setdefault(stage, Span(time.time_ns()))
        began, waited_s = time.monotonic(), self._get_input_wait_s()
        try:
            yield
        finally:
            elapsed_s = max(0.0, time.monotonic() - began - (self._get_input_wait_s() - waited_s))
            span.last_ns = time.time_ns()
            self._add(stage, elapsed_s)

    def measure_iterator(self, stage: PipelineStage, items: Iterator[T]) -> Iterator[T]:
        """Yield the same items, attributing the time to produce them to a stage."""
        end = object()
        while True:
            with self.measure(stage):
                item = next(items, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # not the end marker

    def add_external(self, stage: PipelineStage, seconds: float, *, waiting_stage: PipelineStage) -> None:
        """Add the time of another process for a stage, and subtract it from the stage that waited for that process."""
        now_ns = time.time_ns()
        span = self.spans.setdefault(stage, Span(now_ns - int(seconds * 1e9)))
        span.last_ns = now_ns
        self._add(stage, seconds)
        # Results arrive in groups: part of their time was waited for before they are reported here, part will be
        # afterwards.
        self._external_s[waiting_stage] = self._external_s.get(waiting_stage, 0.0) + seconds
        self.spans.setdefault(waiting_stage, Span(now_ns, now_ns))
        self._add(waiting_stage, 0.0)

    def _add(self, stage: PipelineStage, seconds: float) -> None:
        """Count a stage's seconds, without those of external stages."""
        known_s = self._step_s.get(stage, 0.0) + seconds
        others_s = min(known_s, self._external_s.get(stage, 0.0))
        if others_s:
            self._external_s[stage] -= others_s
        self._step_s[stage] = known_s - others_s
        self.spans[stage].busy_s += seconds - others_s

    def count_frame(self, faces: int) -> None:
        """Count a frame and the faces detected in it."""
        self.frames += 1
        self.frames_with_faces += faces > 0
        if self._observer is not None:
            self._observer.count_frame(faces)

    def finish_step(self) -> None:
        """Report the durations of one step."""
        if self._observer is not None:
            for stage, seconds in self._step_s.items():
                self._observer.observe_stage(stage, seconds)
        self._step_s.clear()
