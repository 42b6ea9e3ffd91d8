"""Marks the job failed with the reason, tells subscribers, gives its place to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common.errors import AwsUnavailableError
from gorggle_lambdas.common.failure_reasons import parse_failure
from gorggle_lambdas.common.job_completion import JobCompletion
from gorggle_lambdas.common.job_slots import JobSlots
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count, logger, task
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


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """End the job badly, and say why."""
    job, chosen, reason = JobEvent.parse(event), load_settings(Settings), parse_failure(event["error"])
    table = JobTable(chosen.jobs_table)
    places = JobSlots(table, chosen.state_machine_arn, chosen.max_concurrent_jobs, chosen.poll_interval_s)
    logger.error("the job failed", error=reason.error, reason=reason.text, cause=event["error"].get("Cause"))
    if JobCompletion(table, places, chosen.jobs_topic).mark_failed(job.job_id, job.attempt, reason):
        count("FailedJobs")
    return {"job_id": job.job_id, "error": reason.error, "reason": reason.text}
