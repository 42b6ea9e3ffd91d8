"""Marks the job done, with what it cost, tells subscribers, gives its place to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common.cost_estimates import compute_job_cost
from gorggle_lambdas.common.errors import AwsUnavailableError
from gorggle_lambdas.common.job_completion import JobCompletion
from gorggle_lambdas.common.job_slots import JobSlots
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent

RAISES = (AwsUnavailableError,)


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    state_machine_arn: str
    max_concurrent_jobs: int
    poll_interval_s: int
    jobs_topic: str
    job_retention_days: int
    prices: str


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """End the job well."""
    job, chosen, result = JobEvent.parse(event), load_settings(Settings), event["result"]
    table = JobTable(chosen.jobs_table)
    places = JobSlots(table, chosen.state_machine_arn, chosen.max_concurrent_jobs, chosen.poll_interval_s)
    kept_days, prices = chosen.job_retention_days, chosen.prices
    values = {
        "result_version": 1,
        "versions": result["versions"],
        "sources": result["sources"],
        "is_degraded": result["is_degraded"],
    }
    if cost := compute_job_cost(job, result["measured"], retention_days=kept_days, prices=prices):
        values["cost"] = cost
    if JobCompletion(table, places, chosen.jobs_topic).mark_done(job.job_id, job.attempt, values):
        count("SucceededJobs")
    return {"job_id": job.job_id, "state": "done"}
