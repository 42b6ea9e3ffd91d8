"""What the state machine gives to its tasks, read into types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gorggle_lambdas.common import s3_objects
from gorggle_lambdas.common.job_options import JobOptions

# The version of an object in a bucket that keeps none.
UNVERSIONED = "null"


@dataclass(frozen=True)
class JobEvent:
    """The job that a task works on."""

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
        """Read ``event["job"]``.

        Raises:
            KeyError, OptionsError: the state machine gives something else: its definition is wrong.
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
        """The version as S3 takes it; empty where the bucket keeps none."""
        return "" if self.version_id == UNVERSIONED else self.version_id

    def work_key(self, name: str) -> str:
        """Where this run keeps something on its way."""
        return s3_objects.work_key(self.job_id, self.attempt, name)


@dataclass(frozen=True)
class WindowEvent:
    """A piece of the video, from ``start_s`` to ``end_s``."""

    index: int
    start_s: float
    end_s: float

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> WindowEvent:
        """Read ``event["window"]``."""
        window = event["window"]
        return cls(int(window["index"]), float(window["start_s"]), float(window["end_s"]))


def compute_deadline(timeout_s: float) -> str:
    """The moment ``timeout_s`` from now, as the state machine carries it."""
    return (datetime.now(UTC) + timedelta(seconds=timeout_s)).isoformat()


def has_expired(deadline: str) -> bool:
    """Whether a moment that ``compute_deadline`` gave is over."""
    return datetime.now(UTC) >= datetime.fromisoformat(deadline)
