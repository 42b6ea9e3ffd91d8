"""Stages are told apart, those too that another process is busy with."""

from __future__ import annotations

import time

import pytest

from gorggle_server.observability.stage_timer import PipelineStage, StageTimer


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.took: dict[PipelineStage, float] = {}

    def stage_took(self, stage: PipelineStage, seconds: float) -> None:
        self.took[stage] = self.took.get(stage, 0.0) + seconds

    def frame_seen(self, faces: int) -> None:
        pass


def test_what_was_waited_for_while_a_frame_was_seen_is_seeing() -> None:
    heard = Heard()
    clock = StageTimer(heard)
    with clock.within(PipelineStage.DECODING):
        time.sleep(0.2)
    clock.add_external(PipelineStage.SEEING, 0.15, waited_for_in=PipelineStage.DECODING)
    clock.stepped()
    assert heard.took[PipelineStage.SEEING] == 0.15
    assert heard.took[PipelineStage.DECODING] == pytest.approx(0.05, abs=0.03)
    seeing = clock.spans[PipelineStage.SEEING]
    assert seeing.busy_s == 0.15
    assert (seeing.last_ns - seeing.first_ns) / 1e9 == pytest.approx(0.15, abs=0.01)


def test_what_was_seen_while_the_stream_did_something_else_leaves_no_stage_less_than_nothing() -> None:
    heard = Heard()
    clock = StageTimer(heard)
    with clock.within(PipelineStage.DECODING):
        pass
    clock.add_external(PipelineStage.SEEING, 2.0, waited_for_in=PipelineStage.DECODING)
    clock.stepped()
    assert heard.took[PipelineStage.SEEING] == 2.0
    assert heard.took[PipelineStage.DECODING] == 0.0
    assert clock.spans[PipelineStage.DECODING].busy_s == 0.0


def test_results_that_come_together_are_told_from_what_is_decoded_between_them() -> None:
    heard = Heard()
    clock = StageTimer(heard)
    for _ in range(3):
        with clock.within(
            PipelineStage.DECODING
        ):  # four frames are waited for at once, which took 0.02 s each to see
            time.sleep(0.1)
        for _ in range(4):
            clock.add_external(PipelineStage.SEEING, 0.02, waited_for_in=PipelineStage.DECODING)
            clock.stepped()
    clock.stepped()
    assert heard.took[PipelineStage.SEEING] == pytest.approx(0.24)
    assert sum(heard.took.values()) == pytest.approx(0.3, abs=0.1)
    assert clock.spans[PipelineStage.DECODING].busy_s + 0.24 == pytest.approx(0.3, abs=0.1)
