"""Marks the job failed with the reason, notifies subscribers, and releases its slot."""

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
    """End a failed job."""
    job, settings, reason = JobEvent.parse(event), load_settings(Settings), parse_failure(event["error"])
    table = JobTable(settings.jobs_table)
    slots = JobSlots(
        table, settings.state_machine_arn, settings.max_concurrent_jobs, settings.poll_interval_s
    )
    logger.error("the job failed", error=reason.error, reason=reason.text, cause=event["error"].get("Cause"))
    if JobCompletion(table, slots, settings.jobs_topic).mark_failed(job.job_id, job.attempt, reason):
        count("FailedJobs")
    return {"job_id": job.job_id, "error": reason.error, "reason": reason.text}
