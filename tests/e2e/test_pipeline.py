"""The whole pipeline: upload through the API, state machine on moto, packaged functions and a real server."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence

import jiwer
import jsonschema
import pytest
import requests

from gorggle_fusion.result import load_result_schema
from gorggle_lambdas.common.api_gateway import PRESIGNED_URL_TYPE
from infrastructure.packaging import lock
from tests.clips import DEMO, EXAMPLES
from tests.e2e.pipeline import ROOT, TOKEN, Pipeline, reference_words, words
from tests.e2e.runtime import lambda_python
from tests.speech_model import IS_INSTALLED

pytestmark = pytest.mark.timeout(600)


def word_error_rate(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    return jiwer.wer(" ".join(reference), " ".join(hypothesis))


@pytest.fixture(scope="module")
def job_id(pipeline: Pipeline) -> str:
    """Transcribe the demo clip with the fake Transcribe and Rekognition; return the job id."""
    job_id = pipeline.upload(lips="av", audio="transcribe", faces="rekognition")
    job = pipeline.wait_for_job(job_id)
    assert job["state"] == "done", (job, pipeline.describe_failures())
    return job_id


# Reports the Python version and the location of the packages of the layers.
PROBE_SOURCE = """
import platform, sys
import av, boto3, grpc, numpy

def handler(event, context):
    return {"python": platform.python_version(), "av": av.__version__, "from": [m.__file__ for m in (av, boto3, grpc, numpy)]}
"""


def test_functions_run_under_the_selected_python_without_this_environment(
    pipeline: Pipeline,
) -> None:
    client, package = pipeline.stack.client("lambda"), io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("probe.py", PROBE_SOURCE)
    configuration = client.get_function_configuration(FunctionName=f"{pipeline.stack.name}-read_lips")
    client.create_function(
        FunctionName="probe",
        Runtime=configuration["Runtime"],
        Role=configuration["Role"],
        Handler="probe.handler",
        Code={"ZipFile": package.getvalue()},
        Timeout=60,
        MemorySize=512,
        Layers=[layer["Arn"] for layer in configuration["Layers"]],
    )
    reported = json.loads(client.invoke(FunctionName="probe")["Payload"].read())
    assert f"CPython {reported['python']} (" in lambda_python().description
    if lambda_python().layers:
        assert f"python{reported['python'].rpartition('.')[0]}" == configuration["Runtime"]
        assert f"\nav=={reported['av']} " in (lock.LOCKS / "media.lock").read_text()
    assert not [path for path in reported["from"] if path.startswith(sys.prefix)]


def test_the_demo_clip_is_transcribed_with_fake_transcribe_and_rekognition(
    pipeline: Pipeline, job_id: str
) -> None:
    job, result = pipeline.job(job_id), pipeline.result(job_id)
    jsonschema.validate(result, load_result_schema())
    assert word_error_rate(words(result), reference_words()) <= 0.07
    assert job["sources"] == {"lips": "used", "audio": "used", "faces": "used"}
    assert not job["is_degraded"]
    assert result["model"]["name"] == "gorggle-mini-1"
    assert {"both"} <= {word["source"] for segment in result["segments"] for word in segment["words"]}
    assert len(result["people"]) == 1


def test_server_engines_replace_transcribe_and_rekognition(pipeline: Pipeline) -> None:
    job_id = pipeline.upload(lips="video", audio="server", faces="server")
    job = pipeline.wait_for_job(job_id)
    assert job["state"] == "done", (job, pipeline.describe_failures())
    result = pipeline.result(job_id)
    assert job["sources"] == {"lips": "used", "audio": "used", "faces": "used"}
    assert word_error_rate(words(result), reference_words()) <= 0.15
    second = " with moonshine-tiny-en" if IS_INSTALLED else ""
    assert result["sources"]["audio"]["engine"] == f"gorggle-mini-1{second}"
    assert result["faces"]
    objects = pipeline.list_job_objects(job_id)
    assert "work/1/audio/0000.json" in objects
    assert "work/1/audio/transcription.json" not in objects


def test_two_people_are_distinguished(pipeline: Pipeline) -> None:
    clip = EXAMPLES / "two_speakers.mp4"
    job_id = pipeline.upload(clip, lips="av", audio="transcribe", faces="rekognition")
    job = pipeline.wait_for_job(job_id)
    assert job["state"] == "done", (job, pipeline.describe_failures())
    result = pipeline.result(job_id)
    assert {segment["person"] for segment in result["segments"]} == {"person-1", "person-2"}
    assert word_error_rate(sorted(words(result)), sorted(reference_words(clip))) <= 0.15


def test_the_job_item_contains_decimals_and_no_words(pipeline: Pipeline, job_id: str) -> None:
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
    redirect = pipeline.call("GET", f"/jobs/{job_id}/result?format={form}")
    assert redirect.status_code == 302
    response = requests.get(redirect.headers["location"], timeout=30)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(content_type)
    assert response.text.startswith(beginning)
    inline = pipeline.call("GET", f"/jobs/{job_id}/result?format={form}&inline=true")
    assert inline.text == response.text


def test_the_video_url_supports_range_requests(pipeline: Pipeline, job_id: str) -> None:
    response = pipeline.call("GET", f"/jobs/{job_id}/video")
    assert response.status_code == 200, response.text
    part = requests.get(response.json()["url"], headers={"range": "bytes=100-199"}, timeout=30)
    assert part.status_code == 206
    assert part.content == DEMO.read_bytes()[100:200]
    assert part.headers["content-type"] == "video/mp4"
    assert part.headers["content-range"] == f"bytes 100-199/{DEMO.stat().st_size}"


def test_a_result_above_lambdas_limit_is_returned_as_a_url(pipeline: Pipeline, job_id: str) -> None:
    """A larger response would fail the invocation, as on AWS."""
    s3, key = pipeline.stack.client("s3"), f"jobs/{job_id}/results/1-1/result.json"
    bucket, content = pipeline.stack["bucket:results"], json.dumps({"words": ['"'] * 1_500_000}).encode()
    before = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert len(content) > 4 * 2**20
    s3.put_object(Bucket=bucket, Key=key, Body=content)
    try:
        response = pipeline.call("GET", f"/jobs/{job_id}/result?inline=true&version=1")
        assert (response.status_code, response.headers["content-type"]) == (200, PRESIGNED_URL_TYPE)
        assert requests.get(response.json()["url"], timeout=30).content == content
    finally:
        s3.put_object(Bucket=bucket, Key=key, Body=before, ContentType="application/json")


def test_a_correction_creates_a_new_version_and_keeps_the_old_one(pipeline: Pipeline, job_id: str) -> None:
    first = pipeline.result(job_id)["segments"][0]
    corrections = {
        "base_version": 1,
        "segments": [{"id": first["id"], "text": first["text"].replace("blue", "yellow")}],
        "names": {"person-1": "Anna"},
    }
    response = pipeline.call("PUT", f"/jobs/{job_id}/result", json=corrections)
    assert response.status_code == 200, response.text
    assert pipeline.job(job_id)["result_version"] == 2
    jsonschema.validate(pipeline.result(job_id), load_result_schema())
    assert "<v Anna>bin yellow" in pipeline.call("GET", f"/jobs/{job_id}/result?format=vtt&inline=true").text
    old = pipeline.call("GET", f"/jobs/{job_id}/result?version=1&inline=true").json()
    assert old["segments"][0]["text"] == first["text"]
    conflicting = pipeline.call("PUT", f"/jobs/{job_id}/result", json=corrections)
    assert conflicting.status_code == 409


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


def test_deleting_a_job_deletes_all_its_objects(pipeline: Pipeline) -> None:
    job_id = pipeline.upload(lips="none", audio="transcribe", faces="none")
    pipeline.wait_for_job(job_id)
    assert pipeline.call("DELETE", f"/jobs/{job_id}").status_code == 204
    assert pipeline.call("GET", f"/jobs/{job_id}").status_code == 404
    assert pipeline.list_job_objects(job_id) == []
    versions = pipeline.stack.client("s3").list_object_versions(
        Bucket=pipeline.stack["bucket:uploads"], Prefix=f"uploads/{job_id}/"
    )
    assert "Versions" not in versions


def run_smoke_test(pipeline: Pipeline, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the smoke test against this pipeline."""
    return subprocess.run(
        [sys.executable, "-m", "infrastructure.smoke_test", pipeline.api_url, *arguments],
        cwd=ROOT,
        env={**os.environ, "GORGGLE_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_smoke_test_passes(pipeline: Pipeline) -> None:
    completed = run_smoke_test(pipeline, json.dumps({"token": TOKEN}))
    assert completed.returncode == 0, (completed.stdout, completed.stderr, pipeline.describe_failures())
    assert "health: ok" in completed.stdout
    assert "audio used, faces used, lips used" in completed.stdout
    assert re.search(r"estimated \d+\.\d{4} USD, cost \d+\.\d{4} USD", completed.stdout)
    assert completed.stdout.splitlines()[-1] == "all checks passed"


def test_the_smoke_test_fails_with_an_invalid_token(pipeline: Pipeline) -> None:
    completed = run_smoke_test(pipeline, "a guess")
    assert (completed.returncode, "all checks passed" in completed.stdout) == (1, False)
    assert "error: POST /uploads returned 403" in completed.stderr
