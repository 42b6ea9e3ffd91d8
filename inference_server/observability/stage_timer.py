"""How long each part of the work on a stream takes: for metrics and traces alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

T = TypeVar("T")


class PipelineStage(StrEnum):
    """What a stream's own thread and its decoder do; waiting for the device and reading are the scheduler's."""

    DECODE = "decoding"
    VISION = "seeing"
    VAD = "hearing"


class StageObserver(Protocol):
    """Is told how long things took; called on the streams' threads."""

    def observe_stage(self, stage: PipelineStage, seconds: float) -> None:
        """One step of a stream's media, 0.4 s, has kept a stage busy for so long."""
        ...

    def count_frame(self, faces: int) -> None:
        """A frame was searched for faces, and so many were found."""
        ...


@dataclass
class Span:
    """When a stage was first and last at work, in nanoseconds since 1970, and for how many seconds in between."""

    first_ns: int
    last_ns: int = 0
    busy_s: float = 0.0


class StageTimer:
    """Times the stages of one stream, on its thread.

    Args:
        observer: is told after each step; None where nobody asks.
        get_input_wait_s: for how many seconds the stream has waited for its client: no stage's time.
    """

    def __init__(
        self, observer: StageObserver | None = None, get_input_wait_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._observer, self._get_input_wait_s = observer, get_input_wait_s
        self._step_s: dict[PipelineStage, float] = {}
        self._external_s: dict[PipelineStage, float] = {}
        self.spans: dict[PipelineStage, Span] = {}
        self.frames = self.frames_with_faces = 0

    @contextlib.contextmanager
    def measure(self, stage: PipelineStage) -> Iterator[None]:
        """What is done inside belongs to a stage."""
        span = self.spans.setdefault(stage, Span(time.time_ns()))
        began, starved_s = time.monotonic(), self._get_input_wait_s()
        try:
            yield
        finally:
            took_s = max(0.0, time.monotonic() - began - (self._get_input_wait_s() - starved_s))
            span.last_ns = time.time_ns()
            self._add(stage, took_s)

    def measure_iterator(self, stage: PipelineStage, items: Iterator[T]) -> Iterator[T]:
        """The same items; it belongs to a stage to make them."""
        end = object()
        while True:
            with self.measure(stage):
                item = next(items, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # it is no end

    def add_external(self, stage: PipelineStage, seconds: float, *, waiting_stage: PipelineStage) -> None:
        """Another process was busy with a stage for so long; what was waited for it counts as another stage's no longer."""
        now_ns = time.time_ns()
        span = self.spans.setdefault(stage, Span(now_ns - int(seconds * 1e9)))
        span.last_ns = now_ns
        self._add(stage, seconds)
        # Results come several at once: some were waited for before they are told of, some will yet have been.
        self._external_s[waiting_stage] = self._external_s.get(waiting_stage, 0.0) + seconds
        self.spans.setdefault(waiting_stage, Span(now_ns, now_ns))
        self._add(waiting_stage, 0.0)

    def _add(self, stage: PipelineStage, seconds: float) -> None:
        """Count a stage's seconds, but for those that are others'."""
        known_s = self._step_s.get(stage, 0.0) + seconds
        others_s = min(known_s, self._external_s.get(stage, 0.0))
        if others_s:
            self._external_s[stage] -= others_s
        self._step_s[stage] = known_s - others_s
        self.spans[stage].busy_s += seconds - others_s

    def count_frame(self, faces: int) -> None:
        """A frame was searched for faces."""
        self.frames += 1
        self.frames_with_faces += faces > 0
        if self._observer is not None:
            self._observer.count_frame(faces)

    def finish_step(self) -> None:
        """A step of the media is done with."""
        if self._observer is not None:
            for stage, seconds in self._step_s.items():
                self._observer.observe_stage(stage, seconds)
        self._step_s.clear()
