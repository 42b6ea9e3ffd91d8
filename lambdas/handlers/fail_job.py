"""Marks the job failed with the reason, notifies subscribers, and releases its slot."""

from __future__ import annotations

from typing import Any

from gorggle_lambdas.common.errors import AwsUnavailableError
from gorggle_lambdas.common.failure_reasons import parse_failure
from gorggle_lambdas.common.job_completion import CompletionSettings as Settings
from gorggle_lambdas.common.job_completion import JobCompletion
from gorggle_lambdas.common.observability import count, logger, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent

RAISES = (AwsUnavailableError,)


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """End a failed job."""
    job, settings, reason = JobEvent.parse(event), load_settings(Settings), parse_failure(event["error"])
    logger.error("the job failed", error=reason.error, reason=reason.text, cause=event["error"].get("Cause"))
    if JobCompletion(settings).mark_failed(job.job_id, job.attempt, reason):
        count("FailedJobs")
    return {"job_id": job.job_id, "error": reason.error, "reason": reason.text}
