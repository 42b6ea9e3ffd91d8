"""Latency of pipeline stages, including stages that run in another process."""

from __future__ import annotations

import pytest

from gorggle_server.observability import stage_timer
from gorggle_server.observability.stage_timer import PipelineStage, StageTimer


class RecordingObserver:
    """Records the total duration of each stage."""

    def __init__(self) -> None:
        self.durations: dict[PipelineStage, float] = {}

    def observe_stage(self, stage: PipelineStage, seconds: float) -> None:
        self.durations[stage] = self.durations.get(stage, 0.0) + seconds

    def count_frame(self, faces: int) -> None:
        pass


class FakeClock:
    """Replaces the timer's module ``time``; it advances only in ``sleep``."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return round(self.now_s * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(stage_timer, "time", clock)
    return clock


def test_time_waiting_for_vision_is_attributed_to_vision(clock: FakeClock) -> None:
    observer = RecordingObserver()
    timer = StageTimer(observer)
    with timer.measure(PipelineStage.DECODE):
        clock.sleep(0.2)
    timer.add_external(PipelineStage.VISION, 0.15, waiting_stage=PipelineStage.DECODE)
    timer.finish_step()
    assert observer.durations[PipelineStage.VISION] == 0.15
    assert observer.durations[PipelineStage.DECODE] == pytest.approx(0.05)
    vision = timer.spans[PipelineStage.VISION]
    assert vision.busy_s == 0.15
    assert (vision.last_ns - vision.first_ns) / 1e9 == pytest.approx(0.15)


def test_parallel_vision_does_not_make_a_stage_duration_negative() -> None:
    observer = RecordingObserver()
    timer = StageTimer(observer)
    with timer.measure(PipelineStage.DECODE):
        pass
    timer.add_external(PipelineStage.VISION, 2.0, waiting_stage=PipelineStage.DECODE)
    timer.finish_step()
    assert observer.durations[PipelineStage.VISION] == 2.0
    assert observer.durations[PipelineStage.DECODE] == 0.0
    assert timer.spans[PipelineStage.DECODE].busy_s == 0.0


def test_batched_vision_results_are_separated_from_decoding(clock: FakeClock) -> None:
    observer = RecordingObserver()
    timer = StageTimer(observer)
    for _ in range(3):
        # Waits for four frames at once, each of which took 0.02 s of vision processing.
        with timer.measure(PipelineStage.DECODE):
            clock.sleep(0.1)
        for _ in range(4):
            timer.add_external(PipelineStage.VISION, 0.02, waiting_stage=PipelineStage.DECODE)
            timer.finish_step()
    timer.finish_step()
    assert observer.durations[PipelineStage.VISION] == pytest.approx(0.24)
    assert sum(observer.durations.values()) == pytest.approx(0.3, abs=0.1)
    assert timer.spans[PipelineStage.DECODE].busy_s + 0.24 == pytest.approx(0.3, abs=0.1)
