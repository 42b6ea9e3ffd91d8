"""The job table: the schema of a job, and every update of it.

States: ``awaiting_upload`` → ``waiting`` → ``running`` → ``done`` or ``failed``. Every update is conditional, so that
events delivered twice, late or out of order change nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients, dynamodb_numbers
from gorggle_lambdas.common.errors import JobNotFoundError
from gorggle_lambdas.common.progress import compute_progress

AWAITING_UPLOAD, WAITING, RUNNING, DONE, FAILED = "awaiting_upload", "waiting", "running", "done", "failed"
ENDED = (DONE, FAILED)
# Owner of a job whose video was uploaded directly to the bucket, not through the API.
DIRECT_OWNER = "direct"
# Fields of a job in the API, in this order.
API_FIELDS = (
    *("job_id", "name", "state", "stage", "created_at", "updated_at", "started_at", "ended_at", "expires_at"),
    *("size_bytes", "options", "media", "progress", "sources", "is_degraded", "result_version", "versions"),
    *("failure", "estimate", "cost", "attempt"),
)


@dataclass(frozen=True)
class VideoVersion:
    """One version of an uploaded object; a job is created once per version."""

    bucket: str
    key: str
    version_id: str
    size_bytes: int = 0

    @property
    def digest(self) -> str:
        """40 hexadecimal digits, the same for every event about this version."""
        text = f"{self.bucket}\n{self.key}\n{self.version_id}"
        return hashlib.sha256(text.encode()).hexdigest()[:40]


def now() -> str:
    """Return the current time as stored: ISO 8601 in UTC with microseconds, so that strings sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def new_job_id() -> str:
    """Return an unguessable job ID."""
    return secrets.token_hex(16)


def execution_name(job: Mapping[str, Any]) -> str:
    """Return the execution's name: derived from bucket, key, version and attempt, so the same for every event."""
    version = VideoVersion(job["bucket"], job["key"], job["version_id"])
    return f"{version.digest}-{int(job['attempt'])}"


def compute_expiry(days: int) -> int:
    """Return the expiry time of an item in seconds since 1970, the format of DynamoDB's TTL."""
    return int((datetime.now(UTC) + timedelta(days=days)).timestamp())


class JobTable:
    """The jobs in DynamoDB."""

    def __init__(self, name: str) -> None:
        self.table = aws_clients.table(name)

    def get(self, job_id: str) -> dict[str, Any] | None:
        """Return a job, or None."""
        response = self.table.get_item(Key={"job_id": job_id}, ConsistentRead=True)
        item = response.get("Item")
        return None if item is None else dynamodb_numbers.from_dynamodb(item)

    def create(self, item: Mapping[str, Any]) -> bool:
        """Store a new job; return False if its ID exists."""
        created = {**item, "created_at": now(), "updated_at": now(), "attempt": 1}
        return run_conditionally(
            self.table.put_item,
            Item=dynamodb_numbers.to_dynamodb(created),
            ConditionExpression="attribute_not_exists(job_id)",
        )

    def update(
        self,
        job_id: str,
        values: Mapping[str, Any],
        *,
        allowed_states: tuple[str, ...] = (),
        expected: Mapping[str, Any] | None = None,
    ) -> bool:
        """Set attributes of a job.

        Args:
            job_id: the job.
            values: the attributes.
            allowed_states: required current states; empty: any.
            expected: required current values of attributes.

        Returns:
            False if the job does not exist or a condition is not met: then nothing is changed.
        """
        condition = Attr("job_id").exists()
        if allowed_states:
            condition &= Attr("state").is_in(allowed_states)
        for name, value in (expected or {}).items():
            condition &= Attr(name).eq(dynamodb_numbers.to_dynamodb(value))
        changed = {**values, "updated_at": now()}
        parameters = {f":set{index}": value for index, value in enumerate(changed.values())}
        return run_conditionally(
            self.table.update_item,
            Key={"job_id": job_id},
            UpdateExpression="SET "
            + ", ".join(f"#set{index} = :set{index}" for index in range(len(changed))),
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#set{index}": name for index, name in enumerate(changed)},
            ExpressionAttributeValues=dynamodb_numbers.to_dynamodb(parameters),
        )

    def advance(self, job_id: str, attempt: int, values: Mapping[str, Any]) -> None:
        """Set attributes of the job during a run of the pipeline.

        Raises:
            JobNotFoundError: it was deleted, or a later attempt is running.
        """
        if not self.update(job_id, values, expected={"attempt": attempt}):
            raise JobNotFoundError(f"job {job_id} was deleted or restarted: this run stops")

    def record_progress(self, job_id: str, attempt: int, window: str, processed_s: float) -> None:
        """Store how much of a window is processed. Ignored if the job does not exist; the next step detects that."""
        run_conditionally(
            self.table.update_item,
            Key={"job_id": job_id},
            UpdateExpression="SET windows.#window = :processed, #updated = :now",
            ConditionExpression="attempt = :attempt AND attribute_exists(windows)",
            ExpressionAttributeNames={"#window": window, "#updated": "updated_at"},
            ExpressionAttributeValues=dynamodb_numbers.to_dynamodb(
                {":processed": processed_s, ":now": now(), ":attempt": attempt}
            ),
        )

    def delete(self, job_id: str) -> None:
        """Delete a job."""
        self.table.delete_item(Key={"job_id": job_id})

    def list_by_owner(
        self, owner: str, limit: int, start: Mapping[str, Any] | None
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """Return a page of an owner's jobs, newest first, and the next start key (None at the end)."""
        return self._query("owner", owner, limit, start, newest_first=True)

    def list_by_state(self, state: str, limit: int) -> list[dict[str, Any]]:
        """Return jobs in a state, oldest first."""
        return self._query("state", state, limit, None, newest_first=False)[0]

    def _query(
        self, name: str, value: str, limit: int, start: Mapping[str, Any] | None, *, newest_first: bool
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        extra: dict[str, Any] = {"ExclusiveStartKey": dict(start)} if start else {}
        response = self.table.query(
            IndexName=f"by_{name}",
            KeyConditionExpression=Key(name).eq(value),
            ScanIndexForward=not newest_first,
            Limit=limit,
            **extra,
        )
        jobs = [dynamodb_numbers.from_dynamodb(item) for item in response["Items"]]
        return jobs, response.get("LastEvaluatedKey")


def run_conditionally(write: Callable[..., Any], **arguments: Any) -> bool:
    """Call a write operation of DynamoDB; return False if its condition is not met."""
    try:
        write(**arguments)
    except ClientError as error:
        if aws_clients.get_error_code(error) != "ConditionalCheckFailedException":
            raise
        return False
    return True


def to_api(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's fields in the API."""
    fields = {name: item[name] for name in API_FIELDS if name in item}
    windows = item.get("windows")
    if isinstance(windows, Mapping) and "progress" in fields:
        # Windows overlap, so their sum slightly exceeds the total.
        processed_s = min(sum(map(float, windows.values())), float(fields["progress"].get("total_s", 0)))
        fields["progress"] = {**fields["progress"], "processed_s": round(processed_s, 1)}
    return fields | compute_progress(fields)
