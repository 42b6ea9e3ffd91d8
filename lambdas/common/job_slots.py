"""How many jobs run at once: places, and starting the jobs that wait for one.

The places taken are a set of job names in one item of the table, so that taking and giving back twice is as good as
once, and two functions can never take the last place both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients, job_table
from gorggle_lambdas.common.job_table import JobTable

# The item's name; no job's, for those are hexadecimal.
SLOTS_KEY = "#places"
# Looked at in one go; the schedule finds the rest.
BATCH_SIZE = 25


@dataclass(frozen=True)
class JobSlots:
    """The cap on jobs at once, and the state machine that runs them."""

    table: JobTable
    state_machine_arn: str
    max_concurrent_jobs: int
    poll_interval_s: int

    def list_running(self) -> list[str]:
        """The jobs that have a place."""
        item = self.table.get(SLOTS_KEY)
        return list(item.get("running", [])) if item else []

    def release(self, job_id: str) -> None:
        """Free a job's place."""
        release_slot(self.table, job_id)

    def start_waiting_jobs(self, new_job: Mapping[str, Any] | None = None) -> list[str]:
        """Start the jobs that wait, oldest first, as far as there are places.

        Args:
            new_job: a job that began to wait just now, which the index may not know yet; it comes last.

        Returns:
            The names of those that were started.
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
        try:
            self.table.table.update_item(
                Key={"job_id": SLOTS_KEY},
                UpdateExpression="ADD running :one",
                ConditionExpression="attribute_not_exists(running) OR size(running) < :most OR contains(running, :id)",
                ExpressionAttributeValues={
                    ":one": {job_id},
                    ":most": self.max_concurrent_jobs,
                    ":id": job_id,
                },
            )
        except ClientError as error:
            if aws_clients.get_error_code(error) == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def _start(self, job_id: str) -> bool:
        """Start a job's execution; False where it no longer waits."""
        job = self.table.get(job_id)
        if job is None or job["state"] != job_table.WAITING:
            return False
        name = job_table.execution_name(job)
        try:
            answer = aws_clients.client("stepfunctions").start_execution(
                stateMachineArn=self.state_machine_arn,
                name=name,
                input=build_execution_input(job, self.poll_interval_s),
            )
            arn = answer["executionArn"]
        except ClientError as error:
            # An execution of this name has ended already: an event came again after it.
            if aws_clients.get_error_code(error) != "ExecutionAlreadyExists":
                self.release(job_id)
                raise
            arn = self.state_machine_arn.replace(":stateMachine:", ":execution:") + f":{name}"
        # Only a waiting job: a very short execution may have ended it by now.
        self.table.update(
            job_id,
            {"state": job_table.RUNNING, "started_at": job_table.now(), "execution_arn": arn},
            allowed_states=(job_table.WAITING,),
        )
        return True

    def _release_unless_active(self, job_id: str) -> None:
        job = self.table.get(job_id)
        if job is None or job["state"] not in (job_table.WAITING, job_table.RUNNING):
            self.release(job_id)


def release_slot(table: JobTable, job_id: str) -> None:
    """Free a job's place; nothing happens where it has none."""
    table.table.update_item(
        Key={"job_id": SLOTS_KEY},
        UpdateExpression="DELETE running :one",
        ExpressionAttributeValues={":one": {job_id}},
    )


def build_execution_input(job: Mapping[str, Any], poll_interval_s: int) -> str:
    """What the state machine is given: names of things, never the things themselves."""
    given = {
        name: job[name]
        for name in ("job_id", "attempt", "bucket", "key", "version_id", "size_bytes", "name", "options")
    }
    return json.dumps({"job": given, "settings": {"poll_interval_s": poll_interval_s}})
