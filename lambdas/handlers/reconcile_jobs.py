"""Ends jobs whose execution ended without saying so, frees their places, and starts jobs that wait.

Called when an execution ends, and every few minutes: whatever else went wrong, no job runs for ever, and no place
stays taken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients, job_table
from gorggle_lambdas.common.failure_reasons import parse_failure
from gorggle_lambdas.common.job_completion import JobCompletion
from gorggle_lambdas.common.job_slots import JobSlots
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.settings import load_settings

FAILURE_STATUSES = ("FAILED", "TIMED_OUT", "ABORTED")


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
    """Take an "Execution Status Change" event, or the schedule's."""
    chosen = load_settings(Settings)
    table = JobTable(chosen.jobs_table)
    places = JobSlots(table, chosen.state_machine_arn, chosen.max_concurrent_jobs, chosen.poll_interval_s)
    ending = JobCompletion(table, places, chosen.jobs_topic)
    detail = event.get("detail") or {}
    if event.get("detail-type") == "Step Functions Execution Status Change":
        settled = reconcile_execution(ending, detail)
    else:
        settled = sum(_reconcile_job(ending, job_id) for job_id in places.list_running())
    started = places.start_waiting_jobs()
    return {"settled": settled, "started": len(started)}


def reconcile_execution(ending: JobCompletion, execution: dict[str, Any]) -> int:
    """End the job of an execution that has ended; how many jobs were ended by this: 0 or 1."""
    given = json.loads(execution.get("input") or "{}").get("job") or {}
    if not given:
        return 0
    job_id, attempt = given["job_id"], int(given["attempt"])
    if execution["status"] not in FAILURE_STATUSES:
        # It marked its job itself; a place it may have kept is freed by the schedule.
        return 0
    job = ending.table.get(job_id)
    # Whoever deletes a job stops its execution: then there is nobody to tell.
    if job is None:
        ending.slots.release(job_id)
        return 0
    failure = {"Error": execution.get("error") or execution["status"], "Cause": execution.get("cause")}
    ended = ending.mark_failed(job_id, attempt, parse_failure(failure))
    if ended:
        count("ReconciledJobs")
    return int(ended)


def _reconcile_job(ending: JobCompletion, job_id: str) -> int:
    job = ending.table.get(job_id)
    if job is None or job["state"] in job_table.ENDED:
        ending.slots.release(job_id)
        return 0
    if not job.get("execution_arn"):
        return 0
    try:
        execution = aws_clients.client("stepfunctions").describe_execution(executionArn=job["execution_arn"])
    except ClientError as error:
        if aws_clients.get_error_code(error) != "ExecutionDoesNotExist":
            raise
        execution = {"status": "ABORTED", "input": json.dumps({"job": {**job, "windows": None}})}
    if execution["status"] == "RUNNING":
        return 0
    if execution["status"] == "SUCCEEDED":
        execution = {**execution, "status": "ABORTED"}
    return reconcile_execution(ending, execution)
