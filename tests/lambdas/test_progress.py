"""How far a job is, in per cent, whatever state it is in."""

from __future__ import annotations

from typing import Any

import pytest

from gorggle_lambdas.common.progress import STEPS, compute_progress

READ = {"progress": {"to_read_s": 20.0, "read_s": 10.0}}


@pytest.mark.parametrize(
    ("job", "percent", "states"),
    [
        ({"state": "awaiting_upload"}, 0, "waiting waiting waiting waiting"),
        ({"state": "waiting", "stage": "waiting"}, 0, "running waiting waiting waiting"),
        ({"state": "running", "stage": "probing"}, 3, "done running waiting waiting"),
        ({"state": "running", "stage": "reading"}, 10, "done done running waiting"),
        ({"state": "running", "stage": "reading", **READ}, 52, "done done running waiting"),
        ({"state": "running", "stage": "fusing", **READ}, 95, "done done done running"),
        ({"state": "done", "stage": "done", **READ}, 100, "done done done done"),
        ({"state": "failed", "stage": "reading", **READ}, 52, "done done failed waiting"),
        ({"state": "failed", "stage": "probing"}, 3, "done failed waiting waiting"),
        ({"state": "failed"}, 0, "failed waiting waiting waiting"),
    ],
)
def test_a_job_says_how_far_it_is_as_a_whole_and_step_by_step(
    job: dict[str, Any], percent: int, states: str
) -> None:
    told = compute_progress(job)
    assert told["percent"] == percent
    assert " ".join(step["state"] for step in told["steps"]) == states
    assert [step["name"] for step in told["steps"]] == [step.name for step in STEPS]
    assert {step["percent"] for step in told["steps"] if step["state"] == "done"} <= {100}


def test_windows_that_overlap_are_no_more_than_the_whole() -> None:
    job = {"state": "running", "stage": "reading", "progress": {"to_read_s": 20.0, "read_s": 99.0}}
    assert compute_progress(job)["percent"] == 95
