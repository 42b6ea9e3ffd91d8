"""Tests that S3 objects and DynamoDB items survive a restart of moto, and that interrupted jobs resume or fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from gorggle_lambdas.common import job_table
from gorggle_lambdas.common.job_slots import SLOTS_KEY
from gorggle_local.aws.emulator import ACCOUNT, REGION
from gorggle_local.aws.job_recovery import MAX_INTERRUPTIONS, plan_recovery
from gorggle_local.aws.persistence import PersistenceConfig, StatePersister

JOB, KEY = "ab" * 16, f"uploads/{'ab' * 16}/demo.mp4"
VIDEO = bytes(range(256)) * 100


@dataclass
class Cloud:
    s3: Any
    table: Any
    persister: StatePersister
    report: dict[str, list[str]]

    def put(self, bucket: str, key: str, body: bytes = VIDEO) -> str:
        response = self.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="video/mp4")
        return str(response.get("VersionId", "null"))

    def body(self, bucket: str, key: str, **options: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=bucket, Key=key, **options)["Body"].read())

    def job(self, **values: Any) -> dict[str, Any]:
        """Store a job, which is done unless the values say otherwise; return its item."""
        item = {
            "job_id": JOB, "owner": "you", "state": "done", "key": KEY, "attempt": 1,
            "created_at": "2026-01-01", "ended_at": "2026-01-01", "cost": {"total": Decimal("0.012")}, **values,
        }  # fmt: skip
        self.table.put_item(Item=item)
        return item

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.table.scan()["Items"])


@contextmanager
def running_moto(folder: Path, limit_bytes: int = 10**9) -> Iterator[Cloud]:
    """Start moto with empty buckets and tables, and persist its state in a folder."""
    with mock_aws():
        s3, dynamodb = boto3.client("s3", REGION), boto3.resource("dynamodb", REGION)
        for name in ("uploads", "results"):
            s3.create_bucket(Bucket=name)
        s3.put_bucket_versioning(Bucket="uploads", VersioningConfiguration={"Status": "Enabled"})
        table = dynamodb.create_table(
            TableName="jobs",
            KeySchema=[{"AttributeName": "job_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "job_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        config = PersistenceConfig("uploads", "results", "jobs", limit_bytes)
        persister = StatePersister(folder, config, ACCOUNT, REGION, boto3.client("dynamodb", REGION))
        report = persister.start()
        try:
            yield Cloud(s3, table, persister, report)
        finally:
            persister.stop()


def test_objects_and_items_are_restored(tmp_path: Path) -> None:
    with running_moto(tmp_path) as cloud:
        versions = [cloud.put("uploads", KEY, body) for body in (b"first", VIDEO)]
        cloud.put("results", f"jobs/{JOB}/result.json", b"{}")
        job = cloud.job()
        etag = cloud.s3.head_object(Bucket="uploads", Key=KEY)["ETag"]
    for _ in range(2):
        with running_moto(tmp_path) as cloud:
            assert cloud.report == {"resumed": [], "failed": []}
            assert cloud.jobs() == [job]
            assert cloud.body("uploads", KEY) == VIDEO
            assert cloud.body("uploads", KEY, VersionId=versions[0]) == b"first"
            assert cloud.body("uploads", KEY, Range="bytes=256-258") == b"\x00\x01\x02"
            assert cloud.body("results", f"jobs/{JOB}/result.json") == b"{}"
            head = cloud.s3.head_object(Bucket="uploads", Key=KEY)
            assert (head["VersionId"], head["ETag"]) == (versions[1], etag)
            assert head["ContentType"] == "video/mp4"
            assert head["ContentLength"] == len(VIDEO)


def test_saved_state_survives_a_kill(tmp_path: Path) -> None:
    with running_moto(tmp_path) as cloud:
        cloud.put("uploads", KEY)
        cloud.job()
        deadline = time.monotonic() + 20
        while JOB not in _read_state(tmp_path):
            assert time.monotonic() < deadline, "the state was not saved within 20 s"
            time.sleep(0.05)
        text = _read_state(tmp_path)
        assert cloud.body("uploads", KEY) == VIDEO, "the object should be read from its saved copy"
    assert _read_state(tmp_path) == text, "stopping should not change a saved state"


def _read_state(folder: Path) -> str:
    path = folder / "state.json"
    return path.read_text() if path.exists() else ""


def test_overwritten_and_deleted_objects_leave_no_files(tmp_path: Path) -> None:
    with running_moto(tmp_path) as cloud:
        version = cloud.put("uploads", KEY)
        cloud.put("results", "jobs/x", b"old")
    with running_moto(tmp_path) as cloud:
        cloud.put("results", "jobs/x", b"new")
        cloud.s3.delete_object(Bucket="uploads", Key=KEY, VersionId=version)
    with running_moto(tmp_path) as cloud:
        assert cloud.body("results", "jobs/x") == b"new"
        assert "Contents" not in cloud.s3.list_objects_v2(Bucket="uploads")
    assert len(list((tmp_path / "objects").iterdir())) == 1


def test_above_the_size_limit_the_oldest_videos_are_deleted_and_transcripts_kept(tmp_path: Path) -> None:
    with running_moto(tmp_path) as cloud:
        for number in range(3):
            cloud.put("uploads", f"uploads/{number}/v.mp4")
            cloud.put("results", f"jobs/{number}/result.json", b"{}")
            cloud.job(
                job_id=str(number) * 32,
                key=f"uploads/{number}/v.mp4",
                **({} if number else {"state": "running"}),
            )
        cloud.table.update_item(Key={"job_id": "0" * 32}, UpdateExpression="REMOVE ended_at")
    with running_moto(tmp_path, limit_bytes=2 * len(VIDEO) + 100) as cloud:
        pass
    with running_moto(tmp_path) as cloud:
        remaining = {each["Key"] for each in cloud.s3.list_objects_v2(Bucket="uploads")["Contents"]}
        assert remaining == {"uploads/0/v.mp4", "uploads/2/v.mp4"}, (
            "the video of the running job must be kept"
        )
        assert cloud.body("results", "jobs/1/result.json") == b"{}"
        assert len(cloud.jobs()) == 3


def test_expired_jobs_are_removed_with_their_files(tmp_path: Path) -> None:
    with running_moto(tmp_path) as cloud:
        cloud.put("uploads", KEY)
        cloud.put("results", f"jobs/{JOB}/result.json", b"{}")
        cloud.job(expires_at=int(time.time()) - 1)
    with running_moto(tmp_path) as cloud:
        assert cloud.jobs() == []
        assert "Contents" not in cloud.s3.list_objects_v2(Bucket="results")
    assert list((tmp_path / "objects").iterdir()) == []


def test_an_interrupted_job_is_requeued(tmp_path: Path) -> None:
    with running_moto(tmp_path) as cloud:
        version = cloud.put("uploads", KEY)
        cloud.job(
            state="running",
            stage="analyzing",
            version_id=version,
            execution_arn="arn",
            progress={"total_s": 9},
        )
        cloud.table.put_item(Item={"job_id": SLOTS_KEY, "running": {JOB}})
    with running_moto(tmp_path) as cloud:
        assert cloud.report == {"resumed": [JOB], "failed": []}
        (job,) = cloud.jobs()
        assert (job["state"], job["attempt"], job["version_id"]) == ("waiting", 2, version)
        assert "execution_arn" not in job


@pytest.mark.parametrize(
    ("state", "has_video", "new_state", "reason"),
    [
        ("awaiting_upload", False, "failed", "before the upload was complete"),
        ("awaiting_upload", True, "waiting", ""),
        ("waiting", True, "waiting", ""),
        ("waiting", False, "failed", "has been deleted"),
        ("running", False, "failed", "has been deleted"),
        ("done", False, "done", ""),
        ("failed", False, "failed", "as before"),
    ],
)
def test_jobs_are_resumed_or_fail_at_startup(
    state: str, has_video: bool, new_state: str, reason: str
) -> None:
    item = {
        "job_id": {"S": JOB}, "state": {"S": state}, "key": {"S": KEY}, "attempt": {"N": "1"},
        "failure": {"M": {"reason": {"S": "as before"}}} if state == "failed" else {"NULL": True},
    }  # fmt: skip
    (job,) = plan_recovery([item], {KEY: ("v7", 42)} if has_video else {}).items
    assert job["state"]["S"] == new_state
    assert reason in str(job.get("failure"))
    if state == "awaiting_upload" and has_video:
        assert (job["version_id"], job["size_bytes"]) == ({"S": "v7"}, {"N": "42"})


def test_a_job_fails_after_repeated_interruptions() -> None:
    item: dict[str, Any] = {
        "job_id": {"S": JOB}, "state": {"S": "running"}, "key": {"S": KEY}, "attempt": {"N": "1"},
    }  # fmt: skip
    states = []
    for _ in range(MAX_INTERRUPTIONS + 1):
        (item,) = plan_recovery([item], {KEY: ("v", 1)}).items
        states.append(item["state"]["S"])
        item["state"] = {"S": job_table.RUNNING}
    assert states == [job_table.WAITING] * MAX_INTERRUPTIONS + [job_table.FAILED]
    assert "stopped 3 times" in item["failure"]["M"]["reason"]["S"]
