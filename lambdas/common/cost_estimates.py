"""What a job costs, by the model of ``gorggle cost``: from its options before it runs, from what was measured after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gorggle_lambdas.aws_costs.cost_model import (
    DAYS_PER_MONTH,
    JobUsage,
    compute_gpu_hourly_cost,
    compute_usage_cost,
    estimate_usage,
)
from gorggle_lambdas.aws_costs.prices import parse_prices
from gorggle_lambdas.common.task_events import JobEvent

# Prices where nobody is charged, such as on a machine of one's own: jobs tell no cost.
NO_CHARGE = "none"
# A function that reads a window waits for the GPU with this much memory.
TRANSCRIPTION_LAMBDA_GB = 1.5
GIB = 2**30


def estimate_job_cost(
    job: JobEvent,
    duration_s: float,
    *,
    reads_lips: bool,
    audio_engine: str,
    face_engine: str,
    window_duration_s: float,
    retention_days: int,
    prices: str,
) -> dict[str, Any] | None:
    """What a video will probably cost, in US dollars, by part; None where nobody is charged.

    Args:
        job: for the video's size.
        duration_s: of the video.
        reads_lips: whether the server reads lips.
        audio_engine: who hears: "transcribe", "server" or "none".
        face_engine: who sees: "rekognition", "server" or "none".
        window_duration_s: length of a window.
        retention_days: how long the video is kept.
        prices: unit prices as JSON; empty: the documented ones; "none": nobody is charged.
    """
    if prices == NO_CHARGE:
        return None
    unit = parse_prices(prices)
    work = estimate_usage(
        duration_s,
        reads_lips=reads_lips,
        audio_engine=audio_engine,
        face_engine=face_engine,
        window_duration_s=window_duration_s,
        gib_months=_compute_gib_months(job, retention_days),
        prices=unit,
    )
    return compute_usage_cost(work, compute_gpu_hourly_cost(prices=unit), unit).to_document()


def compute_job_cost(
    job: JobEvent, usage: Mapping[str, float], *, retention_days: int, prices: str
) -> dict[str, Any] | None:
    """What a video cost, from what ``findings.usage`` gives; None where nobody is charged."""
    if prices == NO_CHARGE:
        return None
    unit = parse_prices(prices)
    work = JobUsage(
        **usage,
        lambda_gb_s=usage["gpu_s"] * TRANSCRIPTION_LAMBDA_GB,
        gib_months=_compute_gib_months(job, retention_days),
    )
    return compute_usage_cost(work, compute_gpu_hourly_cost(prices=unit), unit).to_document()


def _compute_gib_months(job: JobEvent, retention_days: int) -> float:
    return job.size_bytes / GIB * retention_days / DAYS_PER_MONTH
