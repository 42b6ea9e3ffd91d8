"""Progress of a job, in percent and by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """A step of the pipeline, and its range of the total progress in percent."""

    name: str
    from_percent: int
    to_percent: int


# Analysis takes nearly all the time.
STEPS = (Step("waiting", 0, 3), Step("probing", 3, 10), Step("analyzing", 10, 95), Step("fusing", 95, 100))
_NAMES = [step.name for step in STEPS]


def compute_progress(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``percent`` and ``steps`` of a job, computed from its other API fields."""
    job_state, stage = job["state"], job.get("stage")
    current = len(STEPS) if job_state == "done" else _NAMES.index(stage) if stage in _NAMES else 0
    current_state = {"failed": "failed", "awaiting_upload": "waiting"}.get(job_state, "running")
    share = _compute_analysis_share(job.get("progress") or {}) if stage == "analyzing" else 0.0
    percent = 100.0
    steps = []
    for index, step in enumerate(STEPS):
        if index == current:
            state, step_share = current_state, share
            percent = step.from_percent + (step.to_percent - step.from_percent) * share
        else:
            state, step_share = ("done", 1.0) if index < current else ("waiting", 0.0)
        steps.append({"name": step.name, "state": state, "percent": int(step_share * 100)})
    return {"percent": int(percent), "steps": steps}


def _compute_analysis_share(progress: Mapping[str, Any]) -> float:
    total_s = float(progress.get("total_s", 0))
    return min(1.0, float(progress.get("processed_s", 0)) / total_s) if total_s > 0 else 0.0
