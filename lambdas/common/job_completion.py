"""How a job ends: its state, its place, its subscribers, and the next job in line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common import aws_clients, job_table
from gorggle_lambdas.common.failure_reasons import FailureReason
from gorggle_lambdas.common.job_slots import JobSlots
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count, logger


@dataclass(frozen=True)
class JobCompletion:
    """Ends jobs, each once."""

    table: JobTable
    slots: JobSlots
    topic_arn: str

    def mark_done(self, job_id: str, attempt: int, values: Mapping[str, Any]) -> bool:
        """Mark a job done; False where it had ended before, or is another attempt's."""
        return self._mark_ended(job_id, attempt, {**values, "state": job_table.DONE, "stage": "done"})

    def mark_failed(self, job_id: str, attempt: int, reason: FailureReason) -> bool:
        """Mark a job failed, with the reason; False likewise. Its stage stays the one in which it failed."""
        failure = {"error": reason.error, "reason": reason.text}
        return self._mark_ended(job_id, attempt, {"state": job_table.FAILED, "failure": failure})

    def _mark_ended(self, job_id: str, attempt: int, values: Mapping[str, Any]) -> bool:
        ended = self.table.update(
            job_id,
            {**values, "ended_at": job_table.now()},
            allowed_states=(job_table.WAITING, job_table.RUNNING),
            expected={"attempt": attempt},
        )
        if ended:
            self._notify(job_id, values)
        # In any case: this may be the second try after one that failed between the two.
        job = self.table.get(job_id)
        if job is None or job["attempt"] == attempt:
            self.slots.release(job_id)
        self.slots.start_waiting_jobs()
        return ended

    def _notify(self, job_id: str, values: Mapping[str, Any]) -> None:
        message = {"job_id": job_id, "state": values["state"], "failure": values.get("failure")}
        try:
            aws_clients.client("sns").publish(
                TopicArn=self.topic_arn,
                Subject=f"Gorggle: job {values['state']}",
                Message=json.dumps(message),
                MessageAttributes={"state": {"DataType": "String", "StringValue": values["state"]}},
            )
        except Exception:
            # The job has ended and says so; nobody may wait for a message. An alarm tells us.
            count("NotificationFailures")
            logger.exception("subscribers could not be told")
