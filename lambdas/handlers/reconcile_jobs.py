"""Ends jobs whose execution ended without recording it, releases their slots, and starts waiting jobs.

Called when an execution ends, and every few minutes, so that no job runs forever and no slot stays occupied.
"""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients, job_table
from gorggle_lambdas.common.failure_reasons import parse_failure
from gorggle_lambdas.common.job_completion import CompletionSettings as Settings
from gorggle_lambdas.common.job_completion import JobCompletion
from gorggle_lambdas.common.job_slots import list_running_jobs, release_slot
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.settings import load_settings

FAILURE_STATUSES = ("FAILED", "TIMED_OUT", "ABORTED")


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Handle an "Execution Status Change" event, or the schedule's."""
    completion = JobCompletion(load_settings(Settings))
    detail = event.get("detail") or {}
    if event.get("detail-type") == "Step Functions Execution Status Change":
        reconciled = reconcile_execution(completion, detail)
    else:
        reconciled = sum(_reconcile_job(completion, job_id) for job_id in list_running_jobs(completion.table))
    started = completion.slots.start_waiting_jobs()
    return {"reconciled": reconciled, "started": len(started)}


def reconcile_execution(completion: JobCompletion, execution: dict[str, Any]) -> int:
    """Fail the job of an ended execution; return the number of jobs ended: 0 or 1."""
    job_input = json.loads(execution.get("input") or "{}").get("job") or {}
    if not job_input:
        return 0
    job_id, attempt = job_input["job_id"], int(job_input["attempt"])
    if execution["status"] not in FAILURE_STATUSES:
        # The execution updated its job; the schedule releases a slot it may still hold.
        return 0
    job = completion.table.get(job_id)
    # Deleting a job stops its execution: no one is notified.
    if job is None:
        release_slot(completion.table, job_id)
        return 0
    failure = {"Error": execution.get("error") or execution["status"], "Cause": execution.get("cause")}
    ended = completion.mark_failed(job_id, attempt, parse_failure(failure))
    if ended:
        count("ReconciledJobs")
    return int(ended)


def _reconcile_job(completion: JobCompletion, job_id: str) -> int:
    job = completion.table.get(job_id)
    if job is None or job["state"] in job_table.ENDED:
        release_slot(completion.table, job_id)
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
    return reconcile_execution(completion, execution)
