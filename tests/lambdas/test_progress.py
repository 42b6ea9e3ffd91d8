"""Tests of the progress in each state of a job."""

from __future__ import annotations

from typing import Any

import pytest

from gorggle_lambdas.common.progress import STEPS, compute_progress

PROGRESS = {"progress": {"total_s": 20.0, "processed_s": 10.0}}


@pytest.mark.parametrize(
    ("job", "percent", "states"),
    [
        ({"state": "awaiting_upload"}, 0, "waiting waiting waiting waiting"),
        ({"state": "waiting", "stage": "waiting"}, 0, "running waiting waiting waiting"),
        ({"state": "running", "stage": "probing"}, 3, "done running waiting waiting"),
        ({"state": "running", "stage": "analyzing"}, 10, "done done running waiting"),
        ({"state": "running", "stage": "analyzing", **PROGRESS}, 52, "done done running waiting"),
        ({"state": "running", "stage": "fusing", **PROGRESS}, 95, "done done done running"),
        ({"state": "done", "stage": "done", **PROGRESS}, 100, "done done done done"),
        ({"state": "failed", "stage": "analyzing", **PROGRESS}, 52, "done done failed waiting"),
        ({"state": "failed", "stage": "probing"}, 3, "done failed waiting waiting"),
        ({"state": "failed"}, 0, "failed waiting waiting waiting"),
    ],
)
def test_progress_is_reported_in_total_and_by_step(job: dict[str, Any], percent: int, states: str) -> None:
    progress = compute_progress(job)
    assert progress["percent"] == percent
    assert " ".join(step["state"] for step in progress["steps"]) == states
    assert [step["name"] for step in progress["steps"]] == [step.name for step in STEPS]
    assert {step["percent"] for step in progress["steps"] if step["state"] == "done"} <= {100}


def test_overlapping_windows_do_not_exceed_the_total() -> None:
    job = {"state": "running", "stage": "analyzing", "progress": {"total_s": 20.0, "processed_s": 99.0}}
    assert compute_progress(job)["percent"] == 95
