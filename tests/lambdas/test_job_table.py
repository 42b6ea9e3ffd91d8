"""Tests of the job API (list, get, delete, retry), and of job completion, failure and reconciliation."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from gorggle_lambdas.aws_costs.cost_model import compute_gpu_hourly_cost
from gorggle_lambdas.common.dynamodb_numbers import from_dynamodb, to_dynamodb
from gorggle_lambdas.common.job_table import FAILED, RUNNING, WAITING, JobTable
from tests.lambdas.moto_environment import JOB_ID, Cloud, job_event

BROKEN = {"Error": "InvalidMediaError", "Cause": json.dumps({"errorMessage": "the video is broken"})}


def table(cloud: Cloud) -> JobTable:
    return JobTable(cloud.stack["table:jobs"])


def path(job_id: str = JOB_ID) -> dict[str, Any]:
    return {"pathParameters": {"job_id": job_id}}


def test_numbers_survive_a_dynamodb_round_trip(cloud: Cloud) -> None:
    values = {"share": 0.1, "count": 3, "whole": 2.0, "deep": [{"x": -1.5e-5}], "on": True, "none": None}
    assert to_dynamodb(values)["share"] == Decimal("0.1")
    table(cloud).create({"job_id": JOB_ID, "owner": "ada", "state": RUNNING, "values": values})
    item = table(cloud).get(JOB_ID)
    assert item is not None
    assert item["values"] == {**values, "whole": 2, "deep": [{"x": -0.000015}]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_values_that_cannot_be_stored_are_rejected(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        to_dynamodb({"x": value})


def test_sets_are_loaded_as_sorted_lists() -> None:
    assert from_dynamodb({"b", "a"}) == ["a", "b"]


def test_a_job_is_visible_to_its_owner_only(cloud: Cloud) -> None:
    job_event(cloud)
    status, job = cloud.api("get_job", **path())
    assert (status, job["state"]) == (200, "running")
    assert "bucket" not in job
    assert cloud.api("get_job", owner="eve", **path())[0] == 404
    assert cloud.api("get_job", **path("../../secret"))[0] == 404
    assert cloud.api("get_job", **path("#slots"))[0] == 404


def test_progress_sums_the_windows(cloud: Cloud) -> None:
    job_event(cloud)
    table(cloud).update(JOB_ID, {"progress": {"windows": 2, "total_s": 20.0}})
    for window, processed_s in (("lips-0", 4.5), ("lips-1", 2.0), ("lips-0", 9.0)):
        table(cloud).record_progress(JOB_ID, 1, window, processed_s)
    assert cloud.api("get_job", **path())[1]["progress"] == {"windows": 2, "total_s": 20, "processed_s": 11.0}


def test_an_earlier_attempt_cannot_change_a_job(cloud: Cloud) -> None:
    job_event(cloud)
    table(cloud).update(JOB_ID, {"attempt": 2})
    table(cloud).record_progress(JOB_ID, 1, "lips-0", 5.0)
    cloud.call("fail_job", {**first_attempt_event(cloud), "error": BROKEN})
    item = cloud.item(JOB_ID)
    assert item is not None
    assert (item["state"], item["windows"]) == (RUNNING, {})


def first_attempt_event(cloud: Cloud) -> dict[str, Any]:
    item = cloud.item(JOB_ID)
    assert item is not None
    return {"job": {**item, "attempt": 1}}


def test_jobs_are_listed_in_pages_newest_first(cloud: Cloud) -> None:
    for number in range(5):
        table(cloud).create({"job_id": f"{number}" * 32, "owner": "ada", "state": RUNNING})
    _, first = cloud.api("list_jobs", queryStringParameters={"limit": "2"})
    assert [job["job_id"][0] for job in first["jobs"]] == ["4", "3"]
    _, second = cloud.api("list_jobs", queryStringParameters={"limit": "9", "next": first["next"]})
    assert [job["job_id"][0] for job in second["jobs"]] == ["2", "1", "0"]
    assert "next" not in second
    others = cloud.api("list_jobs", owner="eve", queryStringParameters={"next": first["next"]})
    assert others[1]["jobs"] == []


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "x"}, {"limit": "101"}, {"next": "?"}, {"next": "e30"}]
)
def test_invalid_page_parameters_are_rejected(cloud: Cloud, query: dict[str, str]) -> None:
    assert cloud.api("list_jobs", queryStringParameters=query)[0] == 400


def test_a_failed_job_stores_the_reason_and_notifies_subscribers(cloud: Cloud) -> None:
    event = job_event(cloud)
    table(cloud).advance(JOB_ID, 1, {"stage": "analyzing"})
    queue = cloud.client("sqs").create_queue(QueueName="mail")["QueueUrl"]
    cloud.client("sns").subscribe(
        TopicArn=cloud.stack["topic:jobs"], Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:mail"
    )
    for _ in range(2):
        response = cloud.call("fail_job", {**event, "error": BROKEN})
        assert response["reason"] == "the video is broken"
    _, job = cloud.api("get_job", **path())
    assert job["failure"] == {"error": "InvalidMediaError", "reason": "the video is broken"}
    assert (job["state"], job["stage"]) == ("failed", "analyzing"), "the stage of the failure should be kept"
    mail = cloud.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert len(mail) == 1


def test_a_failed_notification_is_counted_and_does_not_fail_the_job(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    event = job_event(cloud)
    cloud.client("sns").delete_topic(TopicArn=cloud.stack["topic:jobs"])
    cloud.call("fail_job", {**event, "error": BROKEN})
    assert cloud.api("get_job", **path())[1]["state"] == "failed"
    assert '"NotificationFailures"' in capsys.readouterr().out


def test_unexpected_error_messages_are_not_shown(cloud: Cloud) -> None:
    event = job_event(cloud)
    cause = {"Error": "KeyError", "Cause": json.dumps({"errorMessage": "'password'"})}
    cloud.call("fail_job", {**event, "error": cause})
    assert cloud.api("get_job", **path())[1]["failure"]["reason"] == "internal error (KeyError)"


def test_a_done_job_cannot_fail_later(cloud: Cloud) -> None:
    event = job_event(cloud)
    result = {
        "versions": [{"version": 1, "folder": "1-1"}],
        "sources": {"lips": "used"},
        "is_degraded": False,
        "usage": {"windows": 1, "transcribed_s": 60.0, "face_detection_s": 0.0, "gpu_s": 36.0},
    }
    for _ in range(2):
        cloud.call("complete_job", {**event, "result": result})
    cloud.call("fail_job", {**event, "error": BROKEN})
    _, job = cloud.api("get_job", **path())
    assert job["state"] == "done"
    assert job["cost"]["transcribe"] == pytest.approx(0.024)
    assert job["cost"]["gpu"] == pytest.approx(36 / 3600 * compute_gpu_hourly_cost(), abs=1e-4)
    assert job["cost"]["step_functions"] == pytest.approx(43 * 0.000025, abs=1e-4)


def test_a_retried_job_has_a_new_execution_name(cloud: Cloud) -> None:
    event = job_event(cloud, b"video")
    assert cloud.api("retry_job", **path())[0] == 409
    cloud.call("fail_job", {**event, "error": BROKEN})
    status, job = cloud.api("retry_job", **path())
    assert (status, job["state"], job["attempt"]) == (202, "running", 2)
    (execution,) = cloud.executions()
    assert execution["name"].endswith("-2")


def test_deleting_a_job_deletes_all_versions_of_its_objects(cloud: Cloud) -> None:
    event = job_event(cloud, b"one")
    cloud.put(event["job"]["key"], b"two")
    cloud.client("s3").put_object(Bucket=cloud.stack["bucket:results"], Key=f"jobs/{JOB_ID}/x", Body=b"x")
    cloud.client("s3").put_object(Bucket=cloud.stack["bucket:results"], Key="jobs/other/x", Body=b"x")
    assert cloud.api("delete_job", owner="eve", **path())[0] == 404
    assert cloud.api("delete_job", **path()) == (204, None)
    assert cloud.item(JOB_ID) is None
    assert cloud.result_keys() == ["jobs/other/x"]
    versions = cloud.client("s3").list_object_versions(Bucket=cloud.stack["bucket:uploads"])
    assert "Versions" not in versions
    assert cloud.api("delete_job", **path())[0] == 404


def test_health_reports_running_jobs(cloud: Cloud) -> None:
    status, response = cloud.api("check_health", owner="")
    assert (status, response) == (200, {"status": "ok", "running_jobs": 0, "max_concurrent_jobs": 10})


def test_health_fails_without_the_table_and_reveals_nothing(cloud: Cloud) -> None:
    cloud.client("dynamodb").delete_table(TableName=cloud.stack["table:jobs"])
    status, problem = cloud.api("check_health", owner="")
    assert (status, problem["detail"]) == (500, "internal error")
    assert problem["instance"] == "urn:request:call-1"


# ----------------------------------------------------------------------------------------------------- reconciliation


def status_change(status: str, **job: Any) -> dict[str, Any]:
    detail = {"status": status, "input": json.dumps({"job": {"job_id": JOB_ID, "attempt": 1, **job}})}
    return {"detail-type": "Step Functions Execution Status Change", "detail": detail}


@pytest.mark.parametrize(
    ("status", "reason"),
    [("TIMED_OUT", "the job timed out"), ("ABORTED", "the job was stopped")],
)
def test_an_execution_that_ends_unexpectedly_fails_its_job(cloud: Cloud, status: str, reason: str) -> None:
    job_event(cloud)
    assert cloud.call("reconcile_jobs", status_change(status))["reconciled"] == 1
    assert cloud.call("reconcile_jobs", status_change(status))["reconciled"] == 0
    assert cloud.api("get_job", **path())[1]["failure"]["reason"] == reason


def test_a_succeeded_execution_is_not_reconciled(cloud: Cloud) -> None:
    job_event(cloud)
    assert cloud.call("reconcile_jobs", status_change("SUCCEEDED"))["reconciled"] == 0


def test_an_execution_without_a_job_is_ignored(cloud: Cloud) -> None:
    event = {
        "detail-type": "Step Functions Execution Status Change",
        "detail": {"status": "FAILED", "input": "{}"},
    }
    assert cloud.call("reconcile_jobs", event)["reconciled"] == 0


def test_the_schedule_releases_stale_slots(cloud: Cloud) -> None:
    job_ids = {"gone" * 8, JOB_ID}
    cloud.client("dynamodb").put_item(
        TableName=cloud.stack["table:jobs"],
        Item={"job_id": {"S": "#slots"}, "running": {"SS": sorted(job_ids)}},
    )
    job_event(cloud)
    table(cloud).update(JOB_ID, {"state": FAILED})
    cloud.call("reconcile_jobs", {})
    assert cloud.api("check_health", owner="")[1]["running_jobs"] == 0


def test_the_schedule_fails_a_job_with_an_ended_execution(cloud: Cloud) -> None:
    job_event(cloud)
    sfn = cloud.client("stepfunctions")
    arn = sfn.start_execution(
        stateMachineArn=cloud.stack["state_machine"],
        name="x",
        input=json.dumps({"job": {"job_id": JOB_ID, "attempt": 1}}),
    )["executionArn"]
    table(cloud).update(JOB_ID, {"execution_arn": arn})
    cloud.client("dynamodb").put_item(
        TableName=cloud.stack["table:jobs"], Item={"job_id": {"S": "#slots"}, "running": {"SS": [JOB_ID]}}
    )
    assert cloud.call("reconcile_jobs", {})["reconciled"] == 0
    sfn.stop_execution(executionArn=arn)
    assert cloud.call("reconcile_jobs", {})["reconciled"] == 1
    assert cloud.api("get_job", **path())[1]["state"] == "failed"


def test_the_schedule_starts_waiting_jobs(cloud: Cloud) -> None:
    job_event(cloud)
    table(cloud).update(JOB_ID, {"state": WAITING})
    assert cloud.call("reconcile_jobs", {})["started"] == 1
