"""Marks the job failed with the reason, tells subscribers, gives its place to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lambdas.common.ending import Ending
from lambdas.common.environment import settings
from lambdas.common.errors import AwsUnavailableError
from lambdas.common.events import JobEvent
from lambdas.common.jobs import JobTable
from lambdas.common.observation import count, logger, task
from lambdas.common.places import Places
from lambdas.common.reasons import reason_of

RAISES = (AwsUnavailableError,)


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    state_machine_arn: str
    max_jobs: int
    poll_s: int
    jobs_topic: str


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """End the job badly, and say why."""
    job, chosen, reason = JobEvent.of(event), settings(Settings), reason_of(event["error"])
    table = JobTable(chosen.jobs_table)
    places = Places(table, chosen.state_machine_arn, chosen.max_jobs, chosen.poll_s)
    logger.error("the job failed", error=reason.error, reason=reason.text, cause=event["error"].get("Cause"))
    if Ending(table, places, chosen.jobs_topic).failed(job.job_id, job.attempt, reason):
        count("FailedJobs")
    return {"job_id": job.job_id, "error": reason.error, "reason": reason.text}
