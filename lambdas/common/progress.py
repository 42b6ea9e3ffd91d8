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
STEPS = (
    Step("waiting", 0, 3),
    Step("probing", 3, 10),
    Step("analyzing", 10, 95),
    Step("fusing", 95, 100),
)
_NAMES = [step.name for step in STEPS]


def compute_progress(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``percent`` and ``steps`` of a job, computed from its other API fields."""
    match job["state"]:
        case "done":
            return _to_document(100, ["done"] * len(STEPS), [100] * len(STEPS))
        case "awaiting_upload":
            return _to_document(0, ["waiting"] * len(STEPS), [0] * len(STEPS))
    stage = job.get("stage")
    index = _NAMES.index(stage) if stage in _NAMES else 0
    share = _compute_analysis_share(job.get("progress") or {}) if _NAMES[index] == "analyzing" else 0.0
    step = STEPS[index]
    percent = int(step.from_percent + (step.to_percent - step.from_percent) * share)
    after = len(STEPS) - index - 1
    state = "failed" if job["state"] == "failed" else "running"
    return _to_document(
        percent,
        [*["done"] * index, state, *["waiting"] * after],
        [*[100] * index, int(share * 100), *[0] * after],
    )


def _compute_analysis_share(progress: Mapping[str, Any]) -> float:
    total_s = float(progress.get("total_s", 0))
    return min(1.0, float(progress.get("processed_s", 0)) / total_s) if total_s > 0 else 0.0


def _to_document(percent: int, states: list[str], percents: list[int]) -> dict[str, Any]:
    steps = [
        {"name": name, "state": state, "percent": share}
        for name, state, share in zip(_NAMES, states, percents, strict=True)
    ]
    return {"percent": percent, "steps": steps}
