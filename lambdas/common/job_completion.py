"""Ends a job: sets its state, releases its slot, notifies subscribers, and starts the next job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common import aws_clients, job_table
from gorggle_lambdas.common.failure_reasons import FailureReason
from gorggle_lambdas.common.job_slots import JobSlots, SlotSettings, release_slot
from gorggle_lambdas.common.observability import count, logger


@dataclass(frozen=True)
class CompletionSettings(SlotSettings):
    """Settings of the functions that end jobs, see ``functions.toml``."""

    jobs_topic: str


class JobCompletion:
    """Ends jobs, each once."""

    def __init__(self, settings: CompletionSettings) -> None:
        self.slots, self._topic_arn = JobSlots(settings), settings.jobs_topic
        self.table = self.slots.table

    def mark_done(self, job_id: str, attempt: int, values: Mapping[str, Any]) -> bool:
        """Mark a job done; return False if it had ended before, or another attempt is current."""
        return self._mark_ended(job_id, attempt, {**values, "state": job_table.DONE, "stage": "done"})

    def mark_failed(self, job_id: str, attempt: int, reason: FailureReason) -> bool:
        """Mark a job failed with the reason; return False likewise. The stage stays that of the failure."""
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
        # Unconditionally: this may be a retry after a failure between the two steps.
        job = self.table.get(job_id)
        if job is None or job["attempt"] == attempt:
            release_slot(self.table, job_id)
        self.slots.start_waiting_jobs()
        return ended

    def _notify(self, job_id: str, values: Mapping[str, Any]) -> None:
        message = {"job_id": job_id, "state": values["state"], "failure": values.get("failure")}
        try:
            aws_clients.client("sns").publish(
                TopicArn=self._topic_arn,
                Subject=f"Gorggle: job {values['state']}",
                Message=json.dumps(message),
                MessageAttributes={"state": {"DataType": "String", "StringValue": values["state"]}},
            )
        except Exception:
            # The job's state is already stored; a failed notification only raises an alarm.
            count("NotificationFailures")
            logger.exception("subscribers could not be notified")
