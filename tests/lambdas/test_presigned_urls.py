"""Tests of presigned URLs of videos and results: access, expiry, and responses that are too large."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.api_gateway import MAX_BODY_BYTES, PRESIGNED_URL_TYPE, is_too_large
from gorggle_lambdas.common.job_table import AWAITING_UPLOAD, JobTable
from tests.lambdas.moto_environment import JOB_ID, Cloud, job_event

PATH = {"pathParameters": {"job_id": JOB_ID}}
INLINE = {**PATH, "queryStringParameters": {"inline": "true"}}


def parse_query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


# --------------------------------------------------------------------------------------------------------------- video


def test_a_video_url_is_of_the_transcribed_version_and_expires(cloud: Cloud) -> None:
    event = job_event(cloud, b"the video")
    cloud.put(event["job"]["key"], b"another that was sent since")
    status, response = cloud.api("get_video_url", **PATH)
    assert (status, response["expires_in_s"]) == (200, 900)
    assert urlsplit(response["url"]).path.endswith(event["job"]["key"])
    signed = parse_query(response["url"])
    assert signed["versionId"] == event["job"]["version_id"]
    assert signed["X-Amz-Expires"] == "900"
    video = cloud.client("s3").get_object(
        Bucket=event["job"]["bucket"], Key=event["job"]["key"], VersionId=signed["versionId"]
    )
    assert video["Body"].read() == b"the video"


def test_a_video_is_available_to_its_owner_only(cloud: Cloud) -> None:
    job_event(cloud, b"the video")
    assert cloud.api("get_video_url", owner="eve", **PATH)[0] == 404
    assert cloud.api("get_video_url", owner="", **PATH)[0] == 401
    assert cloud.api("get_video_url", pathParameters={"job_id": "0" * 32})[0] == 404


def test_a_video_not_yet_uploaded_has_no_url(cloud: Cloud) -> None:
    job_event(cloud)
    JobTable(cloud.stack["table:jobs"]).update(JOB_ID, {"state": AWAITING_UPLOAD})
    status, problem = cloud.api("get_video_url", **PATH)
    assert status == 409
    assert "has not been uploaded" in problem["detail"]


def test_a_deleted_video_has_no_url(cloud: Cloud) -> None:
    job = job_event(cloud, b"the video")["job"]
    cloud.client("s3").delete_object(Bucket=job["bucket"], Key=job["key"], VersionId=job["version_id"])
    status, problem = cloud.api("get_video_url", **PATH)
    assert status == 404
    assert "has been deleted" in problem["detail"]


def test_a_missing_video_reported_as_forbidden_has_no_url(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 returns 403 instead of 404 to callers without permission to list the bucket."""
    job_event(cloud, b"the video")

    class ForbiddenS3:
        def head_object(self, **_: Any) -> Any:
            raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")

    monkeypatch.setattr(s3_objects.aws_clients, "client", lambda _: ForbiddenS3())
    assert cloud.api("get_video_url", **PATH)[0] == 404


def test_a_url_in_an_unversioned_bucket_has_no_version(cloud: Cloud) -> None:
    job_event(cloud, b"the video")
    JobTable(cloud.stack["table:jobs"]).update(JOB_ID, {"version_id": "null"})
    assert "versionId" not in parse_query(cloud.api("get_video_url", **PATH)[1]["url"])


@pytest.mark.parametrize(
    ("region", "host"),
    [("us-east-1", "videos.s3.amazonaws.com"), ("eu-central-1", "videos.s3.eu-central-1.amazonaws.com")],
)
def test_presigned_urls_name_their_region(region: str, host: str) -> None:
    s3 = boto3.client(
        "s3",
        region_name=region,
        config=aws_clients._S3_CONFIG,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    get_url = s3.generate_presigned_url("get_object", Params={"Bucket": "videos", "Key": "k"})
    post_url = s3.generate_presigned_post(Bucket="videos", Key="k")["url"]
    assert {urlsplit(get_url).netloc, urlsplit(post_url).netloc} == {host}


# -------------------------------------------------------------------------------------------------------------- results


def create_finished_job(cloud: Cloud, result: Any) -> None:
    """Create a finished job with a result."""
    event = job_event(cloud)
    job_result = {
        "versions": [{"version": 1, "folder": "1-1"}],
        "sources": {},
        "is_degraded": False,
        "usage": {"windows": 0, "transcribed_s": 0.0, "face_detection_s": 0.0, "gpu_s": 0.0},
    }
    cloud.call("complete_job", {**event, "result": job_result})
    cloud.client("s3").put_object(
        Bucket=cloud.stack["bucket:results"],
        Key=f"jobs/{JOB_ID}/results/1-1/result.json",
        Body=result if isinstance(result, bytes) else json.dumps(result).encode(),
    )


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(b"x" * (MAX_BODY_BYTES + 1), id="large"),
        pytest.param(b'"' * (MAX_BODY_BYTES - 100), id="large once its quotes are escaped"),
        pytest.param("é".encode() * (MAX_BODY_BYTES // 3), id="large once its letters are encoded"),
    ],
)
def test_a_result_too_large_for_a_response_is_returned_as_url(cloud: Cloud, result: bytes) -> None:
    create_finished_job(cloud, result)
    status, response = cloud.api("get_result", **INLINE)
    assert status == 200
    assert cloud.headers["content-type"] == PRESIGNED_URL_TYPE
    assert urlsplit(response["url"]).path.endswith(f"jobs/{JOB_ID}/results/1-1/result.json")
    assert parse_query(response["url"])["response-content-type"] == "application/json"
    assert response["expires_in_s"] == 900


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("talk.mp4", "talk.srt"),
        ('a "b"\r\nx: y.mp4', "a-b-x-y.srt"),
        ("été.mp4", "t.srt"),
        ("…", "video.srt"),
    ],
)
def test_a_result_file_name_is_valid_in_a_header(cloud: Cloud, name: str, file: str) -> None:
    create_finished_job(cloud, {})
    JobTable(cloud.stack["table:jobs"]).update(JOB_ID, {"name": name})
    assert cloud.api("get_result", **PATH, queryStringParameters={"format": "srt"})[0] == 302
    signed = parse_query(cloud.headers["location"])
    assert signed["response-content-disposition"] == f'inline; filename="{file}"'


def test_a_small_result_is_returned_inline(cloud: Cloud) -> None:
    create_finished_job(cloud, {"words": "x" * (MAX_BODY_BYTES - 100)})
    status, response = cloud.api("get_result", **INLINE)
    assert (status, cloud.headers["content-type"]) == (200, "application/json")
    assert len(response["words"]) == MAX_BODY_BYTES - 100


def test_an_inline_result_is_below_the_lambda_limit_when_escaped() -> None:
    text = '{"a": "é"}' * 250_000
    assert not is_too_large(text)
    assert len(json.dumps({"statusCode": 200, "headers": {}, "body": text})) < 6_291_556
    assert is_too_large(text * 2)
