"""How far a job is: in per cent as a whole, and step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """A step of the pipeline, and between which shares of the whole it lies, in per cent."""

    name: str
    from_percent: int
    to_percent: int


# Reading takes nearly all the time.
STEPS = (
    Step("waiting", 0, 3),
    Step("probing", 3, 10),
    Step("reading", 10, 95),
    Step("fusing", 95, 100),
)
_NAMES = [step.name for step in STEPS]


def compute_progress(job: Mapping[str, Any]) -> dict[str, Any]:
    """How far a job is, of what the API tells of it otherwise: ``percent``, and ``steps`` in their order."""
    match job["state"]:
        case "done":
            return _to_document(100, ["done"] * len(STEPS), [100] * len(STEPS))
        case "awaiting_upload":
            return _to_document(0, ["waiting"] * len(STEPS), [0] * len(STEPS))
    stage = job.get("stage")
    at = _NAMES.index(stage) if stage in _NAMES else 0
    share = _compute_analysis_share(job.get("progress") or {}) if _NAMES[at] == "reading" else 0.0
    now = STEPS[at]
    percent = int(now.from_percent + (now.to_percent - now.from_percent) * share)
    after = len(STEPS) - at - 1
    state = "failed" if job["state"] == "failed" else "running"
    return _to_document(
        percent,
        [*["done"] * at, state, *["waiting"] * after],
        [*[100] * at, int(share * 100), *[0] * after],
    )


def _compute_analysis_share(progress: Mapping[str, Any]) -> float:
    to_read_s = float(progress.get("to_read_s", 0))
    return min(1.0, float(progress.get("read_s", 0)) / to_read_s) if to_read_s > 0 else 0.0


def _to_document(percent: int, states: list[str], percents: list[int]) -> dict[str, Any]:
    steps = [
        {"name": name, "state": state, "percent": share}
        for name, state, share in zip(_NAMES, states, percents, strict=True)
    ]
    return {"percent": percent, "steps": steps}
