"""Jobs as their owners see them: listed, told, deleted, run again, ended."""

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


def test_numbers_come_back_from_dynamodb_as_they_went(cloud: Cloud) -> None:
    values = {"share": 0.1, "count": 3, "whole": 2.0, "deep": [{"x": -1.5e-5}], "on": True, "none": None}
    assert to_dynamodb(values)["share"] == Decimal("0.1")
    table(cloud).create({"job_id": JOB_ID, "owner": "ada", "state": RUNNING, "values": values})
    item = table(cloud).get(JOB_ID)
    assert item is not None
    assert item["values"] == {**values, "whole": 2, "deep": [{"x": -0.000015}]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_say_is_not_stored(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        to_dynamodb({"x": value})


def test_sets_are_loaded_as_sorted_lists() -> None:
    assert from_dynamodb({"b", "a"}) == ["a", "b"]


def test_a_job_is_told_to_its_owner_alone(cloud: Cloud) -> None:
    job_event(cloud)
    status, job = cloud.api("get_job", **path())
    assert (status, job["state"]) == (200, "running")
    assert "bucket" not in job
    assert cloud.api("get_job", owner="eve", **path())[0] == 404
    assert cloud.api("get_job", **path("../../secret"))[0] == 404
    assert cloud.api("get_job", **path("#places"))[0] == 404


def test_progress_adds_up_over_windows(cloud: Cloud) -> None:
    job_event(cloud)
    table(cloud).update(JOB_ID, {"progress": {"windows": 2, "to_read_s": 20.0}})
    for window, read_s in (("lips-0", 4.5), ("lips-1", 2.0), ("lips-0", 9.0)):
        table(cloud).record_progress(JOB_ID, 1, window, read_s)
    assert cloud.api("get_job", **path())[1]["progress"] == {"windows": 2, "to_read_s": 20, "read_s": 11.0}


def test_an_earlier_attempt_changes_nothing(cloud: Cloud) -> None:
    job_event(cloud)
    table(cloud).update(JOB_ID, {"attempt": 2})
    table(cloud).record_progress(JOB_ID, 1, "lips-0", 5.0)
    cloud.call("fail_job", {**event(cloud), "error": BROKEN})
    item = cloud.item(JOB_ID)
    assert item is not None
    assert (item["state"], item["windows"]) == (RUNNING, {})


def event(cloud: Cloud) -> dict[str, Any]:
    item = cloud.item(JOB_ID)
    assert item is not None
    return {"job": {**item, "attempt": 1}}


def test_lists_go_on_page_by_page_newest_first(cloud: Cloud) -> None:
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
def test_a_wrong_page_is_refused(cloud: Cloud, query: dict[str, str]) -> None:
    assert cloud.api("list_jobs", queryStringParameters=query)[0] == 400


def test_a_job_that_fails_says_why_and_tells_subscribers(cloud: Cloud) -> None:
    given = job_event(cloud)
    table(cloud).advance(JOB_ID, 1, {"stage": "reading"})
    queue = cloud.client("sqs").create_queue(QueueName="mail")["QueueUrl"]
    cloud.client("sns").subscribe(
        TopicArn=cloud.stack["topic:jobs"], Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:mail"
    )
    for _ in range(2):
        answer = cloud.call("fail_job", {**given, "error": BROKEN})
        assert answer["reason"] == "the video is broken"
    _, job = cloud.api("get_job", **path())
    assert job["failure"] == {"error": "InvalidMediaError", "reason": "the video is broken"}
    assert (job["state"], job["stage"]) == ("failed", "reading"), "where it failed"
    mail = cloud.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert len(mail) == 1


def test_a_job_ends_though_its_subscribers_cannot_be_told_and_that_is_counted(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    given = job_event(cloud)
    cloud.client("sns").delete_topic(TopicArn=cloud.stack["topic:jobs"])
    cloud.call("fail_job", {**given, "error": BROKEN})
    assert cloud.api("get_job", **path())[1]["state"] == "failed"
    assert '"NotificationFailures"' in capsys.readouterr().out


def test_what_was_not_raised_on_purpose_is_not_shown(cloud: Cloud) -> None:
    given = job_event(cloud)
    cause = {"Error": "KeyError", "Cause": json.dumps({"errorMessage": "'password'"})}
    cloud.call("fail_job", {**given, "error": cause})
    assert cloud.api("get_job", **path())[1]["failure"]["reason"] == "internal error (KeyError)"


def test_a_done_job_does_not_fail_later(cloud: Cloud) -> None:
    given = job_event(cloud)
    result = {
        "versions": [{"version": 1, "folder": "1-1"}],
        "sources": {"lips": "used"},
        "is_degraded": False,
        "measured": {"windows": 1, "transcribed_s": 60.0, "searched_s": 0.0, "gpu_s": 36.0},
    }
    for _ in range(2):
        cloud.call("complete_job", {**given, "result": result})
    cloud.call("fail_job", {**given, "error": BROKEN})
    _, job = cloud.api("get_job", **path())
    assert job["state"] == "done"
    assert job["cost"]["transcribe"] == pytest.approx(0.024)
    assert job["cost"]["gpu"] == pytest.approx(36 / 3600 * compute_gpu_hourly_cost(), abs=1e-4)
    assert job["cost"]["step_functions"] == pytest.approx(43 * 0.000025, abs=1e-4)


def test_a_failed_job_runs_again_with_another_name(cloud: Cloud) -> None:
    given = job_event(cloud, b"video")
    assert cloud.api("retry_job", **path())[0] == 409
    cloud.call("fail_job", {**given, "error": BROKEN})
    status, job = cloud.api("retry_job", **path())
    assert (status, job["state"], job["attempt"]) == (202, "running", 2)
    (execution,) = cloud.executions()
    assert execution["name"].endswith("-2")


def test_a_deleted_job_is_gone_with_every_version_of_its_files(cloud: Cloud) -> None:
    given = job_event(cloud, b"one")
    cloud.put(given["job"]["key"], b"two")
    cloud.client("s3").put_object(Bucket=cloud.stack["bucket:results"], Key=f"jobs/{JOB_ID}/x", Body=b"x")
    cloud.client("s3").put_object(Bucket=cloud.stack["bucket:results"], Key="jobs/other/x", Body=b"x")
    assert cloud.api("delete_job", owner="eve", **path())[0] == 404
    assert cloud.api("delete_job", **path()) == (204, None)
    assert cloud.item(JOB_ID) is None
    assert cloud.result_keys() == ["jobs/other/x"]
    versions = cloud.client("s3").list_object_versions(Bucket=cloud.stack["bucket:uploads"])
    assert "Versions" not in versions
    assert cloud.api("delete_job", **path())[0] == 404


def test_health_tells_how_many_jobs_run(cloud: Cloud) -> None:
    status, answer = cloud.api("check_health", owner="")
    assert (status, answer) == (200, {"status": "ok", "running_jobs": 0, "max_concurrent_jobs": 10})


def test_a_table_that_is_gone_is_no_health_and_says_nothing_of_itself(cloud: Cloud) -> None:
    cloud.client("dynamodb").delete_table(TableName=cloud.stack["table:jobs"])
    status, problem = cloud.api("check_health", owner="")
    assert (status, problem["detail"]) == (500, "internal error")
    assert problem["instance"] == "urn:request:call-1"


# ------------------------------------------------------------------------------------------------------------ settling


def status_change(status: str, **job: Any) -> dict[str, Any]:
    detail = {"status": status, "input": json.dumps({"job": {"job_id": JOB_ID, "attempt": 1, **job}})}
    return {"detail-type": "Step Functions Execution Status Change", "detail": detail}


@pytest.mark.parametrize(
    ("status", "reason"),
    [("TIMED_OUT", "the job took too long as a whole"), ("ABORTED", "the job was stopped")],
)
def test_an_execution_that_ends_without_a_word_fails_its_job(cloud: Cloud, status: str, reason: str) -> None:
    job_event(cloud)
    assert cloud.call("reconcile_jobs", status_change(status))["settled"] == 1
    assert cloud.call("reconcile_jobs", status_change(status))["settled"] == 0
    assert cloud.api("get_job", **path())[1]["failure"]["reason"] == reason


def test_an_execution_that_succeeds_needs_no_settling(cloud: Cloud) -> None:
    job_event(cloud)
    assert cloud.call("reconcile_jobs", status_change("SUCCEEDED"))["settled"] == 0


def test_an_execution_that_is_not_ours_is_let_be(cloud: Cloud) -> None:
    event = {
        "detail-type": "Step Functions Execution Status Change",
        "detail": {"status": "FAILED", "input": "{}"},
    }
    assert cloud.call("reconcile_jobs", event)["settled"] == 0


def test_the_schedule_frees_places_that_nobody_holds(cloud: Cloud) -> None:
    places = {"gone" * 8, JOB_ID}
    cloud.client("dynamodb").put_item(
        TableName=cloud.stack["table:jobs"],
        Item={"job_id": {"S": "#places"}, "running": {"SS": sorted(places)}},
    )
    job_event(cloud)
    table(cloud).update(JOB_ID, {"state": FAILED})
    cloud.call("reconcile_jobs", {})
    assert cloud.api("check_health", owner="")[1]["running_jobs"] == 0


def test_the_schedule_ends_a_job_whose_execution_is_over(cloud: Cloud) -> None:
    job_event(cloud)
    sfn = cloud.client("stepfunctions")
    arn = sfn.start_execution(
        stateMachineArn=cloud.stack["state_machine"],
        name="x",
        input=json.dumps({"job": {"job_id": JOB_ID, "attempt": 1}}),
    )["executionArn"]
    table(cloud).update(JOB_ID, {"execution_arn": arn})
    cloud.client("dynamodb").put_item(
        TableName=cloud.stack["table:jobs"], Item={"job_id": {"S": "#places"}, "running": {"SS": [JOB_ID]}}
    )
    assert cloud.call("reconcile_jobs", {})["settled"] == 0
    sfn.stop_execution(executionArn=arn)
    assert cloud.call("reconcile_jobs", {})["settled"] == 1
    assert cloud.api("get_job", **path())[1]["state"] == "failed"


def test_the_schedule_starts_what_waits(cloud: Cloud) -> None:
    job_event(cloud)
    table(cloud).update(JOB_ID, {"state": WAITING})
    assert cloud.call("reconcile_jobs", {})["started"] == 1
