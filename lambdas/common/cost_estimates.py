"""Cost of a job, by the model of ``gorggle cost``: estimated before it runs, computed from its usage after."""

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
from gorggle_lambdas.aws_costs.prices import Prices, parse_prices
from gorggle_lambdas.common.task_events import JobEvent

# Setting that disables costs, such as on a local machine.
NO_CHARGE = "none"
# Memory of a Lambda function that waits for the GPU.
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
    """Estimate the cost of a video in US dollars, by part; None if costs are disabled."""
    if prices == NO_CHARGE:
        return None
    unit_prices = parse_prices(prices)
    usage = estimate_usage(
        duration_s,
        reads_lips=reads_lips,
        audio_engine=audio_engine,
        face_engine=face_engine,
        window_duration_s=window_duration_s,
        gib_months=_compute_gib_months(job, retention_days),
        prices=unit_prices,
    )
    return _compute_cost(usage, unit_prices)


def compute_job_cost(
    job: JobEvent, usage: Mapping[str, float], *, retention_days: int, prices: str
) -> dict[str, Any] | None:
    """Return the cost of a video from ``analysis_results.compute_usage``; None if costs are disabled."""
    if prices == NO_CHARGE:
        return None
    unit_prices = parse_prices(prices)
    job_usage = JobUsage(
        **usage,
        lambda_gb_s=usage["gpu_s"] * TRANSCRIPTION_LAMBDA_GB,
        gib_months=_compute_gib_months(job, retention_days),
    )
    return _compute_cost(job_usage, unit_prices)


def _compute_cost(usage: JobUsage, prices: Prices) -> dict[str, Any]:
    return compute_usage_cost(usage, compute_gpu_hourly_cost(prices=prices), prices).to_document()


def _compute_gib_months(job: JobEvent, retention_days: int) -> float:
    return job.size_bytes / GIB * retention_days / DAYS_PER_MONTH
