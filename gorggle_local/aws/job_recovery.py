"""Recovery of jobs that a shutdown interrupted: they are queued again, or fail with a reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from gorggle_lambdas.common import job_table
from gorggle_lambdas.common.job_slots import SLOTS_KEY

# A job that is interrupted repeatedly may be the cause.
MAX_INTERRUPTIONS = 3
STOPPED_ERROR = "StoppedError"
UPLOAD_INTERRUPTED = "Gorggle was stopped before the upload was complete: upload it again"
VIDEO_MISSING = (
    "Gorggle was stopped while this job was running, and its video has been deleted: upload it again"
)
TOO_MANY_INTERRUPTIONS = (
    f"Gorggle was stopped {MAX_INTERRUPTIONS} times while this job was running: retry it if you stopped Gorggle yourself; "
    "otherwise this video may need more memory than available"
)

_deserialize: Callable[[Any], Any] = TypeDeserializer().deserialize
_serialize: Callable[[Any], Any] = TypeSerializer().serialize


@dataclass
class RecoveryPlan:
    """The new content of the jobs table.

    Attributes:
        items: in DynamoDB's JSON format.
        resumed, failed, expired: ids of jobs.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)


def plan_recovery(items: Iterable[Mapping[str, Any]], videos: Mapping[str, tuple[str, int]]) -> RecoveryPlan:
    """Decide for each job whether it is resumed, fails or has expired.

    Args:
        items: of the jobs table, in DynamoDB's JSON format.
        videos: version and size in bytes of the latest upload by key.
    """
    result = RecoveryPlan()
    for typed in items:
        job = {name: _deserialize(value) for name, value in typed.items()}
        job_id = job["job_id"]
        # No job is running, so no slot is taken.
        if job_id == SLOTS_KEY:
            continue
        if 0 < job.get("expires_at", 0) < time.time():
            result.expired.append(job_id)
            continue
        if job.get("state") in (job_table.AWAITING_UPLOAD, job_table.WAITING, job_table.RUNNING):
            job = _recover(job, videos.get(job["key"]))
            (result.failed if job["state"] == job_table.FAILED else result.resumed).append(job_id)
        result.items.append({name: _serialize(value) for name, value in job.items()})
    return result


def _recover(job: dict[str, Any], video: tuple[str, int] | None) -> dict[str, Any]:
    if video is None:
        return _fail(job, UPLOAD_INTERRUPTED if job["state"] == job_table.AWAITING_UPLOAD else VIDEO_MISSING)
    if job["state"] == job_table.AWAITING_UPLOAD:
        # The upload was complete, but its event was lost.
        return _requeue(job) | {"version_id": video[0], "size_bytes": video[1]}
    if job["state"] == job_table.WAITING:
        return _requeue(job)
    interruptions = int(job.get("interruptions", 0)) + 1
    if interruptions > MAX_INTERRUPTIONS:
        return _fail(job, TOO_MANY_INTERRUPTIONS) | {"interruptions": 0}
    return _requeue(job) | {"attempt": int(job["attempt"]) + 1, "interruptions": interruptions}


def _requeue(job: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        name: value for name, value in job.items() if name not in ("execution_arn", "started_at", "progress")
    }
    return {
        **kept,
        "state": job_table.WAITING,
        "stage": "waiting",
        "windows": {},
        "updated_at": job_table.now(),
    }


def _fail(job: Mapping[str, Any], reason: str) -> dict[str, Any]:
    ended = {
        "failure": {"error": STOPPED_ERROR, "reason": reason},
        "ended_at": job_table.now(),
        "updated_at": job_table.now(),
    }
    return {**job, "state": job_table.FAILED, **ended}
