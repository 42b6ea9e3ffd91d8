"""Stages are timed separately, also those of another process."""

from __future__ import annotations

import time

import pytest

from gorggle_server.observability.stage_timer import PipelineStage, StageTimer


class RecordingObserver:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.took: dict[PipelineStage, float] = {}

    def observe_stage(self, stage: PipelineStage, seconds: float) -> None:
        self.took[stage] = self.took.get(stage, 0.0) + seconds

    def count_frame(self, faces: int) -> None:
        pass


def test_waiting_for_vision_counts_as_vision() -> None:
    heard = RecordingObserver()
    clock = StageTimer(heard)
    with clock.measure(PipelineStage.DECODE):
        time.sleep(0.2)
    clock.add_external(PipelineStage.VISION, 0.15, waiting_stage=PipelineStage.DECODE)
    clock.finish_step()
    assert heard.took[PipelineStage.VISION] == 0.15
    assert heard.took[PipelineStage.DECODE] == pytest.approx(0.05, abs=0.03)
    seeing = clock.spans[PipelineStage.VISION]
    assert seeing.busy_s == 0.15
    assert (seeing.last_ns - seeing.first_ns) / 1e9 == pytest.approx(0.15, abs=0.01)


def test_parallel_vision_makes_no_stage_negative() -> None:
    heard = RecordingObserver()
    clock = StageTimer(heard)
    with clock.measure(PipelineStage.DECODE):
        pass
    clock.add_external(PipelineStage.VISION, 2.0, waiting_stage=PipelineStage.DECODE)
    clock.finish_step()
    assert heard.took[PipelineStage.VISION] == 2.0
    assert heard.took[PipelineStage.DECODE] == 0.0
    assert clock.spans[PipelineStage.DECODE].busy_s == 0.0


def test_grouped_results_are_separated_from_decoding_between_them() -> None:
    heard = RecordingObserver()
    clock = StageTimer(heard)
    for _ in range(3):
        with clock.measure(
            PipelineStage.DECODE
        ):  # four frames are waited for at once, which took 0.02 s each to see
            time.sleep(0.1)
        for _ in range(4):
            clock.add_external(PipelineStage.VISION, 0.02, waiting_stage=PipelineStage.DECODE)
            clock.finish_step()
    clock.finish_step()
    assert heard.took[PipelineStage.VISION] == pytest.approx(0.24)
    assert sum(heard.took.values()) == pytest.approx(0.3, abs=0.1)
    assert clock.spans[PipelineStage.DECODE].busy_s + 0.24 == pytest.approx(0.3, abs=0.1)
