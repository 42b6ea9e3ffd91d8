"""Parses the input of state machine tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gorggle_lambdas.common import s3_objects
from gorggle_lambdas.common.job_options import JobOptions
from gorggle_lambdas.media.window_planning import Window

# Version ID of an object in an unversioned bucket.
UNVERSIONED = "null"


@dataclass(frozen=True)
class JobEvent:
    """The job of a task."""

    job_id: str
    attempt: int
    bucket: str
    key: str
    version_id: str
    size_bytes: int
    name: str
    options: JobOptions

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> JobEvent:
        """Parse ``event["job"]``.

        Raises:
            KeyError, OptionsError: the input is invalid: the state machine's definition is wrong.
        """
        job = event["job"]
        return cls(
            job_id=job["job_id"],
            attempt=int(job["attempt"]),
            bucket=job["bucket"],
            key=job["key"],
            version_id=job["version_id"],
            size_bytes=int(job["size_bytes"]),
            name=job["name"],
            options=JobOptions(**job["options"]),
        )

    @property
    def s3_version_id(self) -> str:
        """The version ID to pass to S3; empty in an unversioned bucket."""
        return "" if self.version_id == UNVERSIONED else self.version_id

    def work_key(self, name: str) -> str:
        """Return the key of an intermediate object of this run."""
        return s3_objects.work_key(self.job_id, self.attempt, name)


def parse_window(event: Mapping[str, Any]) -> Window:
    """Parse ``event["window"]``."""
    window = event["window"]
    return Window(int(window["index"]), float(window["start_s"]), float(window["end_s"]))


def compute_deadline(timeout_s: float) -> str:
    """Return the time ``timeout_s`` from now, as stored in the state machine's data."""
    return (datetime.now(UTC) + timedelta(seconds=timeout_s)).isoformat()


def has_expired(deadline: str) -> bool:
    """Return whether a deadline of ``compute_deadline`` has passed."""
    return datetime.now(UTC) >= datetime.fromisoformat(deadline)
