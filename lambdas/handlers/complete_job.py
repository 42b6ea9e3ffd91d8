"""Marks the job done with its cost, notifies subscribers, and releases its slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common.cost_estimates import compute_job_cost
from gorggle_lambdas.common.errors import AwsUnavailableError
from gorggle_lambdas.common.job_completion import CompletionSettings, JobCompletion
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent

RAISES = (AwsUnavailableError,)


@dataclass(frozen=True)
class Settings(CompletionSettings):
    """See ``functions.toml``."""

    job_retention_days: int
    prices: str


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """End a successful job."""
    job, settings, result = JobEvent.parse(event), load_settings(Settings), event["result"]
    retention_days, prices = settings.job_retention_days, settings.prices
    values = {
        "result_version": 1,
        "versions": result["versions"],
        "sources": result["sources"],
        "is_degraded": result["is_degraded"],
    }
    if cost := compute_job_cost(job, result["usage"], retention_days=retention_days, prices=prices):
        values["cost"] = cost
    if JobCompletion(settings).mark_done(job.job_id, job.attempt, values):
        count("SucceededJobs")
    return {"job_id": job.job_id, "state": "done"}
