"""What a job costs, by the model of ``gorggle cost``: from its options before it runs, from what was measured after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gorggle_lambdas.aws_costs.cost_model import (
    DAYS_PER_MONTH,
    JobUsage,
    gpu_per_hour,
    planned_work,
    work_cost,
)
from gorggle_lambdas.aws_costs.prices import prices_of
from gorggle_lambdas.common.task_events import JobEvent

# Prices where nobody is charged, such as on a machine of one's own: jobs tell no cost.
NO_CHARGE = "none"
# A function that reads a window waits for the GPU with this much memory.
READER_GB = 1.5
GIB = 2**30


def estimate(
    job: JobEvent,
    duration_s: float,
    *,
    reads_lips: bool,
    sound: str,
    faces: str,
    window_s: float,
    kept_days: int,
    prices: str,
) -> dict[str, Any] | None:
    """What a video will probably cost, in US dollars, by part; None where nobody is charged.

    Args:
        job: for the video's size.
        duration_s: of the video.
        reads_lips: whether the server reads lips.
        sound: who hears: "transcribe", "server" or "none".
        faces: who sees: "rekognition", "server" or "none".
        window_s: length of a window.
        kept_days: how long the video is kept.
        prices: unit prices as JSON; empty: the documented ones; "none": nobody is charged.
    """
    if prices == NO_CHARGE:
        return None
    unit = prices_of(prices)
    work = planned_work(
        duration_s,
        reads_lips=reads_lips,
        sound=sound,
        faces=faces,
        window_s=window_s,
        gib_months=_gib_months(job, kept_days),
        prices=unit,
    )
    return work_cost(work, gpu_per_hour(prices=unit), unit).to_document()


def actual(
    job: JobEvent, measured: Mapping[str, float], *, kept_days: int, prices: str
) -> dict[str, Any] | None:
    """What a video cost, from what ``findings.measured`` gives; None where nobody is charged."""
    if prices == NO_CHARGE:
        return None
    unit = prices_of(prices)
    work = JobUsage(
        **measured, lambda_gb_s=measured["gpu_s"] * READER_GB, gib_months=_gib_months(job, kept_days)
    )
    return work_cost(work, gpu_per_hour(prices=unit), unit).to_document()


def _gib_months(job: JobEvent, kept_days: int) -> float:
    return job.size_bytes / GIB * kept_days / DAYS_PER_MONTH
