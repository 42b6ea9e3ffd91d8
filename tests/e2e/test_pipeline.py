"""The whole way: a video sent by the API, the state machine on moto, the functions' packages, a real server."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence

import jsonschema
import pytest
import requests

from gorggle_lambdas.common.api_gateway import PRESIGNED_URL_TYPE
from gorggle_lambdas.fusion.result import load_result_schema
from infrastructure.packaging import lock
from tests.clips import DEMO, EXAMPLES
from tests.e2e.pipeline import ROOT, TOKEN, Pipeline, reference_words, words
from tests.e2e.runtime import lambda_python

pytestmark = pytest.mark.timeout(600)


def error_rate(said: Sequence[str], true: Sequence[str]) -> float:
    """Word error rate: Levenshtein's distance over the true words' number."""
    costs = list(range(len(true) + 1))
    for row, word in enumerate(said, 1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(true, 1):
            diagonal, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, diagonal + (word != other)),
            )
    return costs[-1] / len(true)


@pytest.fixture(scope="module")
def job_id(pipeline: Pipeline) -> str:
    """The demo clip, with the stand-ins for Transcribe and Rekognition."""
    job_id = pipeline.upload(lips="av", audio="transcribe", faces="rekognition")
    job = pipeline.wait_for_job(job_id)
    assert job["state"] == "done", (job, pipeline.describe_failures())
    return job_id


# Answers what it runs under, and where its layers' packages come from.
TELLING = """
import platform, sys
import av, boto3, grpc, numpy

def handler(event, context):
    return {"python": platform.python_version(), "av": av.__version__, "from": [m.__file__ for m in (av, boto3, grpc, numpy)]}
"""


def test_functions_run_under_the_selected_python_isolated_from_this_environment(
    pipeline: Pipeline,
) -> None:
    client, packed = pipeline.stack.client("lambda"), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("telling.py", TELLING)
    like = client.get_function_configuration(FunctionName=f"{pipeline.stack.name}-read_lips")
    client.create_function(
        FunctionName="telling",
        Runtime=like["Runtime"],
        Role=like["Role"],
        Handler="telling.handler",
        Code={"ZipFile": packed.getvalue()},
        Timeout=60,
        MemorySize=512,
        Layers=[layer["Arn"] for layer in like["Layers"]],
    )
    reported = json.loads(client.invoke(FunctionName="telling")["Payload"].read())
    assert f"CPython {reported['python']} (" in lambda_python().description
    if lambda_python().layers:
        assert f"python{reported['python'].rpartition('.')[0]}" == like["Runtime"]
        assert f"\nav=={reported['av']} " in (lock.LOCKS / "media.lock").read_text()
    assert not [path for path in reported["from"] if path.startswith(sys.prefix)]


def test_the_demo_clip_is_transcribed_with_fake_transcribe_and_rekognition(
    pipeline: Pipeline, job_id: str
) -> None:
    job, result = pipeline.job(job_id), pipeline.result(job_id)
    jsonschema.validate(result, load_result_schema())
    assert error_rate(words(result), reference_words()) <= 0.07
    assert job["sources"] == {"lips": "used", "audio": "used", "faces": "used"}
    assert not job["is_degraded"]
    assert result["model"]["name"] == "gorggle-mini-1"
    assert {"both"} <= {word["source"] for segment in result["segments"] for word in segment["words"]}
    assert len(result["people"]) == 1


def test_the_servers_own_modes_need_neither_transcribe_nor_rekognition(pipeline: Pipeline) -> None:
    job_id = pipeline.upload(lips="video", audio="server", faces="server")
    job = pipeline.wait_for_job(job_id)
    assert job["state"] == "done", (job, pipeline.describe_failures())
    result = pipeline.result(job_id)
    assert job["sources"] == {"lips": "used", "audio": "used", "faces": "used"}
    assert error_rate(words(result), reference_words()) <= 0.15
    assert result["sources"]["audio"]["engine"] == "gorggle-mini-1"
    assert result["faces"]
    made = pipeline.list_job_objects(job_id)
    assert "work/1/audio/0000.json" in made
    assert "work/1/audio/transcription.json" not in made


def test_two_people_are_distinguished(pipeline: Pipeline) -> None:
    clip = EXAMPLES / "two_speakers.mp4"
    job_id = pipeline.upload(clip, lips="av", audio="transcribe", faces="rekognition")
    job = pipeline.wait_for_job(job_id)
    assert job["state"] == "done", (job, pipeline.describe_failures())
    result = pipeline.result(job_id)
    assert {segment["person"] for segment in result["segments"]} == {"person-1", "person-2"}
    assert error_rate(sorted(words(result)), sorted(reference_words(clip))) <= 0.15


def test_the_job_in_dynamodb_holds_decimals_and_no_words(pipeline: Pipeline, job_id: str) -> None:
    item = pipeline.item(job_id)
    assert item["media"]["M"]["duration_s"] == {"N": "19.968"}
    assert "please" not in json.dumps(item)


def test_state_machine_events_are_small_and_contain_no_words(pipeline: Pipeline, job_id: str) -> None:
    execution = pipeline.item(job_id)["execution_arn"]["S"]
    history = pipeline.stack.client("stepfunctions").get_execution_history(executionArn=execution)
    sizes = [len(json.dumps(event, default=str)) for event in history["events"]]
    assert max(sizes) < 8_000
    assert "please" not in json.dumps(history, default=str)


@pytest.mark.parametrize(
    ("form", "content_type", "beginning"),
    [
        ("vtt", "text/vtt", "WEBVTT"),
        ("srt", "application/x-subrip", "1\n00:00:0"),
        ("ttml", "application/ttml+xml", "<?xml"),
        ("txt", "text/plain", "bin blue"),
        ("json", "application/json", "{"),
    ],
)
def test_results_are_available_in_every_format(
    pipeline: Pipeline, job_id: str, form: str, content_type: str, beginning: str
) -> None:
    moved = pipeline.call("GET", f"/jobs/{job_id}/result?format={form}")
    assert moved.status_code == 302
    answer = requests.get(moved.headers["location"], timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.text.startswith(beginning)
    inline = pipeline.call("GET", f"/jobs/{job_id}/result?format={form}&inline=true")
    assert inline.text == answer.text


def test_the_video_url_supports_range_requests(pipeline: Pipeline, job_id: str) -> None:
    answer = pipeline.call("GET", f"/jobs/{job_id}/video")
    assert answer.status_code == 200, answer.text
    part = requests.get(answer.json()["url"], headers={"range": "bytes=100-199"}, timeout=30)
    assert part.status_code == 206
    assert part.content == DEMO.read_bytes()[100:200]
    assert part.headers["content-type"] == "video/mp4"
    assert part.headers["content-range"] == f"bytes 100-199/{DEMO.stat().st_size}"


def test_a_result_above_lambdas_limit_is_returned_as_a_url(pipeline: Pipeline, job_id: str) -> None:
    """Beyond its limit Lambda fails the call, as on AWS."""
    s3, key = pipeline.stack.client("s3"), f"jobs/{job_id}/results/1-1/result.json"
    bucket, whole = pipeline.stack["bucket:results"], json.dumps({"words": ['"'] * 1_500_000}).encode()
    before = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert len(whole) > 4 * 2**20
    s3.put_object(Bucket=bucket, Key=key, Body=whole)
    try:
        answer = pipeline.call("GET", f"/jobs/{job_id}/result?inline=true&version=1")
        assert (answer.status_code, answer.headers["content-type"]) == (200, PRESIGNED_URL_TYPE)
        assert requests.get(answer.json()["url"], timeout=30).content == whole
    finally:
        s3.put_object(Bucket=bucket, Key=key, Body=before, ContentType="application/json")


def test_a_correction_creates_a_new_version_and_keeps_the_old_one(pipeline: Pipeline, job_id: str) -> None:
    first = pipeline.result(job_id)["segments"][0]
    corrections = {
        "base_version": 1,
        "segments": [{"id": first["id"], "text": first["text"].replace("blue", "yellow")}],
        "names": {"person-1": "Anna"},
    }
    answer = pipeline.call("PUT", f"/jobs/{job_id}/result", json=corrections)
    assert answer.status_code == 200, answer.text
    assert pipeline.job(job_id)["result_version"] == 2
    jsonschema.validate(pipeline.result(job_id), load_result_schema())
    assert "<v Anna>bin yellow" in pipeline.call("GET", f"/jobs/{job_id}/result?format=vtt&inline=true").text
    old = pipeline.call("GET", f"/jobs/{job_id}/result?version=1&inline=true").json()
    assert old["segments"][0]["text"] == first["text"]
    again = pipeline.call("PUT", f"/jobs/{job_id}/result", json=corrections)
    assert again.status_code == 409


def test_requests_need_a_token_and_see_only_their_own_jobs(pipeline: Pipeline, job_id: str) -> None:
    assert pipeline.call("GET", f"/jobs/{job_id}", token=None).status_code == 401
    assert pipeline.call("GET", f"/jobs/{job_id}", token="wrong").status_code == 403
    listed = pipeline.call("GET", "/jobs").json()["jobs"]
    assert job_id in [job["job_id"] for job in listed]
    missing = pipeline.call("GET", f"/jobs/{'0' * 32}")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_health_and_openapi_document_are_public(pipeline: Pipeline) -> None:
    health = pipeline.call("GET", "/health", token=None)
    assert health.json()["status"] == "ok"
    description = pipeline.call("GET", "/openapi.json", token=None).json()
    assert description["openapi"].startswith("3.1")


def test_a_deleted_job_leaves_nothing_behind(pipeline: Pipeline) -> None:
    job_id = pipeline.upload(lips="none", audio="transcribe", faces="none")
    pipeline.wait_for_job(job_id)
    assert pipeline.call("DELETE", f"/jobs/{job_id}").status_code == 204
    assert pipeline.call("GET", f"/jobs/{job_id}").status_code == 404
    assert pipeline.list_job_objects(job_id) == []
    versions = pipeline.stack.client("s3").list_object_versions(
        Bucket=pipeline.stack["bucket:uploads"], Prefix=f"uploads/{job_id}/"
    )
    assert "Versions" not in versions


def verified(pipeline: Pipeline, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command that checks a stack says of this one."""
    return subprocess.run(
        [sys.executable, "-m", "infrastructure.smoke_test", pipeline.api_url, *arguments],
        cwd=ROOT,
        env={**os.environ, "GORGGLE_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_smoke_test_passes(pipeline: Pipeline) -> None:
    done = verified(pipeline, json.dumps({"token": TOKEN}))
    assert done.returncode == 0, (done.stdout, done.stderr, pipeline.describe_failures())
    assert "health: ok" in done.stdout
    assert "audio used, faces used, lips used" in done.stdout
    assert re.search(r"estimated \d+\.\d{4} USD, cost \d+\.\d{4} USD", done.stdout)
    assert done.stdout.splitlines()[-1] == "all checks passed"


def test_the_smoke_test_fails_with_an_invalid_token(pipeline: Pipeline) -> None:
    done = verified(pipeline, "a guess")
    assert (done.returncode, "all checks passed" in done.stdout) == (1, False)
    assert "error: POST /uploads returned 403" in done.stderr
