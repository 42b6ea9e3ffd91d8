"""Tests of uploads and of the events that start jobs."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from gorggle_lambdas.handlers.create_upload import sanitize_name
from tests.lambdas.moto_environment import Cloud


def request_upload(cloud: Cloud, **extra: Any) -> dict[str, Any]:
    body = {"name": "talk.mp4", "content_type": "video/mp4", **extra}
    status, response = cloud.api("create_upload", body=body)
    assert status == 201, response
    return dict(response)


def object_created_event(cloud: Cloud, key: str, version: str, size: int = 5) -> dict[str, Any]:
    detail = {
        "version": "0",
        "bucket": {"name": cloud.stack["bucket:uploads"]},
        "object": {"key": key, "size": size, "etag": "x", "version-id": version, "sequencer": "1"},
        "request-id": "r",
        "requester": "q",
        "source-ip-address": "1.2.3.4",
        "reason": "PutObject",
    }
    return {"version": "0", "id": "1", "source": "aws.s3", "detail-type": "Object Created", "detail": detail}


def sqs_event(*bodies: Any) -> dict[str, Any]:
    records = [
        {
            "messageId": f"m{number}",
            "receiptHandle": "h",
            "body": body if isinstance(body, str) else json.dumps(body),
            "attributes": {},
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:q",
            "awsRegion": "us-east-1",
        }
        for number, body in enumerate(bodies)
    ]
    return {"Records": records}


def parse_policy_conditions(response: dict[str, Any]) -> list[Any]:
    document = json.loads(base64.b64decode(response["upload"]["fields"]["policy"]))
    conditions: list[Any] = document["conditions"]
    return conditions


def test_an_upload_form_limits_key_type_and_size(cloud: Cloud) -> None:
    response = request_upload(cloud)
    conditions = parse_policy_conditions(response)
    assert ["content-length-range", 1, 5368709120] in conditions
    assert {"Content-Type": "video/mp4"} in conditions
    assert {"key": f"uploads/{response['job_id']}/talk.mp4"} in conditions
    item = cloud.item(response["job_id"])
    assert item is not None
    assert (item["state"], item["owner"]) == ("awaiting_upload", "ada")


def test_a_given_size_must_match_exactly(cloud: Cloud) -> None:
    assert ["content-length-range", 77, 77] in parse_policy_conditions(request_upload(cloud, size_bytes=77))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"content_type": "text/html"}, "content_type"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"size_bytes": True}, "size_bytes"),
        ({"size_bytes": 10**12}, "size_bytes"),
        ({"options": {"lips": "eyes"}}, "lips"),
        ({"options": {"lips": "none", "audio": "none"}}, "at least one"),
        ({"options": {"ears": 2}}, "ears"),
        ({"options": []}, "object"),
        ({"name": 7}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_invalid_request_names_the_error(cloud: Cloud, fields: dict[str, Any], message: str) -> None:
    status, problem = cloud.api("create_upload", body={"content_type": "video/mp4", **fields})
    assert status == 400
    assert message in problem["detail"]
    assert cloud.headers["content-type"] == "application/problem+json"
    assert problem["title"] == "Bad Request"


def test_an_invalid_json_body_is_rejected(cloud: Cloud) -> None:
    status, problem = cloud.api("create_upload", body="{")
    assert status == 400
    assert "not valid JSON" in problem["detail"]


def test_an_upload_requires_authorization(cloud: Cloud) -> None:
    assert cloud.api("create_upload", owner="", body={"content_type": "video/mp4"})[0] == 401


def test_one_idempotency_key_creates_one_job(cloud: Cloud) -> None:
    headers = {"Idempotency-Key": "k1"}
    body = {"content_type": "video/mp4"}
    first = cloud.api("create_upload", body=body, headers=headers)
    assert cloud.api("create_upload", body=body, headers=headers) == first
    assert cloud.api("create_upload", owner="bob", body=body, headers=headers)[1] != first[1]
    status, problem = cloud.api("create_upload", body={"content_type": "video/webm"}, headers=headers)
    assert status == 409
    assert "another body" in problem["detail"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\clips\\my talk.mp4", "my-talk.mp4"),
        ("…", "video"),
        (".hidden", "hidden"),
        ("a" * 300 + ".mp4", "a" * 116 + ".mp4"),
    ],
)
def test_a_file_name_is_sanitized(name: str, safe: str) -> None:
    assert sanitize_name(name) == safe


# -------------------------------------------------------------------------------------------------------------- events


def test_repeated_events_start_a_job_once(cloud: Cloud) -> None:
    job_id = request_upload(cloud)["job_id"]
    key = f"uploads/{job_id}/talk.mp4"
    uploaded_event = object_created_event(cloud, key, cloud.put(key, b"video"))
    for _ in range(3):
        assert cloud.call("start_job", sqs_event(uploaded_event, uploaded_event)) == {"batchItemFailures": []}
    (execution,) = cloud.executions()
    item = cloud.item(job_id)
    assert item is not None
    assert item["state"] == "running"
    assert item["execution_arn"] == execution["executionArn"]
    execution_input = json.loads(
        cloud.client("stepfunctions").describe_execution(executionArn=execution["executionArn"])["input"]
    )
    assert execution_input["job"]["version_id"] == item["version_id"]
    assert execution_input["job"]["options"]["lips"] == "av"


def test_an_execution_name_depends_on_bucket_key_and_version(cloud: Cloud) -> None:
    names = set()
    for version in ("v1", "v2", "v1"):
        cloud.call("start_job", sqs_event(object_created_event(cloud, "uploads/x/y/direct.mp4", version)))
        names = {execution["name"] for execution in cloud.executions()}
    assert len(names) == 2


def test_a_second_version_of_a_key_is_a_separate_job(cloud: Cloud) -> None:
    job_id = request_upload(cloud)["job_id"]
    key = f"uploads/{job_id}/talk.mp4"
    for content in (b"one", b"two"):
        cloud.call("start_job", sqs_event(object_created_event(cloud, key, cloud.put(key, content))))
    assert len(cloud.executions()) == 2
    _, listed = cloud.api("list_jobs")
    assert len(listed["jobs"]) == 2


def test_a_direct_upload_to_the_bucket_creates_a_job(cloud: Cloud) -> None:
    cloud.call("start_job", sqs_event(object_created_event(cloud, "uploads/by/hand/talk.mp4", "v")))
    _, listed = cloud.api("list_jobs", owner="direct")
    assert listed["jobs"][0]["name"] == "talk.mp4"
    assert listed["jobs"][0]["options"]["audio"] == "transcribe"


def test_only_failed_messages_are_redelivered(cloud: Cloud) -> None:
    good = object_created_event(cloud, "uploads/a/b/c.mp4", "v")
    response = cloud.call("start_job", sqs_event("no json", good))
    assert response == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert len(cloud.executions()) == 1


def test_a_completely_failed_batch_reports_every_message(cloud: Cloud) -> None:
    response = cloud.call("start_job", sqs_event("no json", "{}"))
    assert response == {"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m1"}]}


def test_jobs_over_the_limit_wait_and_start_in_order(cloud: Cloud) -> None:
    cloud.settings["max_concurrent_jobs"] = 2
    for number in range(4):
        cloud.call("start_job", sqs_event(object_created_event(cloud, f"uploads/by/hand/{number}.mp4", "v")))
    _, listed = cloud.api("list_jobs", owner="direct")
    by_name = {job["name"]: job for job in listed["jobs"]}
    assert [by_name[f"{number}.mp4"]["state"] for number in range(4)] == [
        "running",
        "running",
        "waiting",
        "waiting",
    ]
    first = by_name["0.mp4"]["job_id"]
    fail_job(cloud, first)
    states = {job["name"]: job["state"] for job in cloud.api("list_jobs", owner="direct")[1]["jobs"]}
    assert states == {"0.mp4": "failed", "1.mp4": "running", "2.mp4": "running", "3.mp4": "waiting"}


def fail_job(cloud: Cloud, job_id: str) -> None:
    item = cloud.item(job_id)
    assert item is not None
    cloud.call(
        "fail_job",
        {"job": item, "error": {"Error": "InvalidMediaError", "Cause": '{"errorMessage": "broken"}'}},
    )
