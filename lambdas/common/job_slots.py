"""Job slots: limit the number of concurrent jobs, and start waiting jobs.

Occupied slots are a set of job IDs in one item of the job table, so acquiring and releasing are idempotent, and two
functions can never acquire the last slot both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients, job_table
from gorggle_lambdas.common.job_table import JobTable

# The item's key; cannot collide with job IDs, which are hexadecimal.
SLOTS_KEY = "#slots"
# Waiting jobs considered per call; scheduled reconciliation handles the rest.
BATCH_SIZE = 25


@dataclass(frozen=True)
class SlotSettings:
    """Settings of the functions that start jobs, see ``functions.toml``."""

    jobs_table: str
    state_machine_arn: str
    max_concurrent_jobs: int
    poll_interval_s: int


class JobSlots:
    """The limit of concurrent jobs, and the state machine that runs them."""

    def __init__(self, settings: SlotSettings) -> None:
        self._settings = settings
        self.table = JobTable(settings.jobs_table)

    def start_waiting_jobs(self, new_job: Mapping[str, Any] | None = None) -> list[str]:
        """Start waiting jobs, oldest first, while slots are free.

        Args:
            new_job: a job that has just started to wait, which the index may not contain yet; it comes last.

        Returns:
            The IDs of the started jobs.
        """
        waiting = self.table.list_by_state(job_table.WAITING, BATCH_SIZE)
        if new_job is not None and all(job["job_id"] != new_job["job_id"] for job in waiting):
            waiting.append(dict(new_job))
        started = []
        for job in waiting:
            if not self._acquire(job["job_id"]):
                break
            if self._start(job["job_id"]):
                started.append(job["job_id"])
            else:
                self._release_unless_active(job["job_id"])
        return started

    def _acquire(self, job_id: str) -> bool:
        limit = self._settings.max_concurrent_jobs
        return job_table.run_conditionally(
            self.table.table.update_item,
            Key={"job_id": SLOTS_KEY},
            UpdateExpression="ADD running :one",
            ConditionExpression="attribute_not_exists(running) OR size(running) < :limit OR contains(running, :id)",
            ExpressionAttributeValues={":one": {job_id}, ":limit": limit, ":id": job_id},
        )

    def _start(self, job_id: str) -> bool:
        """Start a job's execution; return False if it is not waiting any more."""
        job = self.table.get(job_id)
        if job is None or job["state"] != job_table.WAITING:
            return False
        name, machine_arn = job_table.execution_name(job), self._settings.state_machine_arn
        try:
            response = aws_clients.client("stepfunctions").start_execution(
                stateMachineArn=machine_arn,
                name=name,
                input=_build_execution_input(job, self._settings.poll_interval_s),
            )
            arn = response["executionArn"]
        except ClientError as error:
            # An execution of this name has already ended: the event was delivered again after it.
            if aws_clients.get_error_code(error) != "ExecutionAlreadyExists":
                release_slot(self.table, job_id)
                raise
            arn = machine_arn.replace(":stateMachine:", ":execution:") + f":{name}"
        # Only from waiting: a very short execution may have ended the job by now.
        self.table.update(
            job_id,
            {"state": job_table.RUNNING, "started_at": job_table.now(), "execution_arn": arn},
            allowed_states=(job_table.WAITING,),
        )
        return True

    def _release_unless_active(self, job_id: str) -> None:
        job = self.table.get(job_id)
        if job is None or job["state"] not in (job_table.WAITING, job_table.RUNNING):
            release_slot(self.table, job_id)


def list_running_jobs(table: JobTable) -> list[str]:
    """Return the IDs of jobs that hold a slot."""
    item = table.get(SLOTS_KEY)
    return list(item.get("running", [])) if item else []


def release_slot(table: JobTable, job_id: str) -> None:
    """Release a job's slot; does nothing if it has none."""
    table.table.update_item(
        Key={"job_id": SLOTS_KEY},
        UpdateExpression="DELETE running :one",
        ExpressionAttributeValues={":one": {job_id}},
    )


def _build_execution_input(job: Mapping[str, Any], poll_interval_s: int) -> str:
    """Return the input of the state machine: references to the job's objects only."""
    job_input = {
        name: job[name]
        for name in ("job_id", "attempt", "bucket", "key", "version_id", "size_bytes", "name", "options")
    }
    return json.dumps({"job": job_input, "settings": {"poll_interval_s": poll_interval_s}})
