"""Fault injection: every job ends, reports its failures, and releases its slot."""

from __future__ import annotations

import json
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clips import DEMO, cut_demo
from tests.e2e.interceptor import Interceptor
from tests.e2e.pipeline import (
    ROOT,
    Certificates,
    GpuServer,
    Pipeline,
    reference_words,
    running_pipeline,
    words,
)

pytestmark = pytest.mark.timeout(600)

MANIFEST = tomllib.loads((ROOT / "lambdas" / "functions.toml").read_text())
# The functions that a job with all sources calls if nothing fails; the others have separate tests.
CALLED_FUNCTIONS = [
    "start_job",
    *(
        name
        for name in MANIFEST["state_machine"]["calls"]
        if name not in ("record_source_failure", "fail_job", "transcribe_audio")
    ),
]
ALL_SOURCES = {"lips": "av", "audio": "transcribe", "faces": "rekognition"}
# More than is sent before the media, less than a window of the clip.
MID_STREAM_BYTES = 60_000
TIMEOUT_S = 120
TRANSCRIBE_ONLY = {"lips": "none", "audio": "transcribe", "faces": "none"}


@pytest.fixture(scope="module")
def own_server(certificates: Certificates) -> Iterator[GpuServer]:
    """Run a server that tests kill, freeze and restart."""
    server = GpuServer(certificates)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def interceptor(own_server: GpuServer) -> Iterator[Interceptor]:
    """Run a proxy in front of the server."""
    interceptor = Interceptor(own_server.port)
    yield interceptor
    interceptor.close()


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory,
    own_server: GpuServer,
    interceptor: Interceptor,
    certificates: Certificates,
) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("aws")
    settings = {"fleet_start_timeout_s": TIMEOUT_S, "max_concurrent_jobs": 2, "window_duration_s": 4}
    with running_pipeline(
        folder,
        own_server,
        certificates,
        time_scale=0.2,
        server_port=interceptor.port,
        clip=cut_demo(folder, sentence_count=2),
        **settings,
    ) as pipeline:
        # Events of failed invocations are delivered again quickly, sometimes while they are still being processed.
        pipeline.stack.client("sqs").set_queue_attributes(
            QueueUrl=pipeline.stack["queue:uploads"], Attributes={"VisibilityTimeout": "1"}
        )
        yield pipeline


@pytest.fixture(autouse=True)
def _remove_faults(pipeline: Pipeline) -> Iterator[None]:
    yield
    pipeline.inject_faults()


def fault_all_functions(kind: str, **options: Any) -> list[dict[str, Any]]:
    return [{"function": f"-{name}", "kind": kind, **options} for name in CALLED_FUNCTIONS]


def get_failures(result: dict[str, Any], source: str) -> list[str]:
    return [failure["reason"] for failure in result["sources"][source]["failures"]]


def wait_for_result(pipeline: Pipeline, job_id: str) -> dict[str, Any]:
    job = pipeline.wait_for_job(job_id)
    assert job["state"] == "done", (job, pipeline.describe_failures())
    return pipeline.result(job_id)


def wait_for_full_result(pipeline: Pipeline, job_id: str) -> dict[str, Any]:
    """Wait for a result without failed sources."""
    result = wait_for_result(pipeline, job_id)
    assert not result["is_degraded"], (result["sources"], pipeline.describe_failures())
    return result


# ------------------------------------------------------------------------------------------------------- the functions


@pytest.mark.drill
def test_duplicate_invocations_give_one_result(pipeline: Pipeline) -> None:
    pipeline.inject_faults(*fault_all_functions("twice"))
    before = len(pipeline.executions())
    job_id = pipeline.upload(**ALL_SOURCES)
    result = wait_for_full_result(pipeline, job_id)
    assert set(reference_words(pipeline.clip)) <= set(words(result))
    assert len(pipeline.executions()) == before + 1


@pytest.mark.drill
def test_every_function_is_retried_after_a_timeout(pipeline: Pipeline) -> None:
    pipeline.inject_faults(*fault_all_functions("timeout", after_s=0.01))
    wait_for_full_result(pipeline, pipeline.upload(**ALL_SOURCES))


def test_every_function_is_retried_after_a_crash(pipeline: Pipeline) -> None:
    pipeline.inject_faults(*fault_all_functions("exit", after_s=0.001))
    wait_for_full_result(pipeline, pipeline.upload(**ALL_SOURCES))


@pytest.mark.drill
def test_service_errors_of_lambda_are_retried(pipeline: Pipeline) -> None:
    pipeline.inject_faults(*fault_all_functions("unreachable", times=2))
    wait_for_full_result(pipeline, pipeline.upload(**ALL_SOURCES))


@pytest.mark.parametrize("function", ["start_transcription", "check_transcription"])
def test_failure_of_a_transcription_function_degrades_the_result(pipeline: Pipeline, function: str) -> None:
    pipeline.inject_faults(
        {"function": f"-{function}", "kind": "error", "error": "KeyError", "message": "secret", "times": 9}
    )
    result = wait_for_result(pipeline, pipeline.upload(lips="video", audio="transcribe", faces="none"))
    assert result["is_degraded"]
    assert result["sources"]["audio"]["status"] == "failed"
    assert get_failures(result, "audio") == ["internal error (KeyError)"]
    assert result["segments"]


@pytest.mark.parametrize("function", ["start_face_detection", "check_face_detection"])
def test_failure_of_face_detection_degrades_the_result(pipeline: Pipeline, function: str) -> None:
    pipeline.inject_faults(
        {
            "function": f"-{function}",
            "kind": "error",
            "error": "SourceTimeoutError",
            "message": "too late",
            "times": 9,
        }
    )
    result = wait_for_result(pipeline, pipeline.upload(lips="none", audio="transcribe", faces="rekognition"))
    assert result["sources"]["faces"]["status"] == "failed"
    assert get_failures(result, "faces") == ["too late"]
    assert words(result) == reference_words(pipeline.clip)


@pytest.mark.parametrize("function", ["scale_up_fleet", "check_fleet", "read_lips"])
def test_failure_of_lip_reading_degrades_the_result(pipeline: Pipeline, function: str) -> None:
    pipeline.inject_faults(
        {
            "function": f"-{function}",
            "kind": "error",
            "error": "NoFaceError",
            "message": "no face",
            "times": 9,
        }
    )
    result = wait_for_result(pipeline, pipeline.upload(lips="video", audio="transcribe", faces="none"))
    assert result["sources"]["lips"]["status"] == "failed"
    assert get_failures(result, "lips") == ["no face"]
    assert words(result) == reference_words(pipeline.clip)


def test_audio_transcription_survives_transient_faults(pipeline: Pipeline) -> None:
    """Several faults in one job: its windows are retried."""
    pipeline.inject_faults(
        *({"function": "-transcribe_audio", "kind": kind} for kind in ("timeout", "unreachable", "twice"))
    )
    result = wait_for_full_result(pipeline, pipeline.upload(lips="none", audio="server", faces="none"))
    assert result["segments"]
    assert result["sources"]["audio"]["status"] == "used"


def test_failure_of_audio_transcription_degrades_the_result(pipeline: Pipeline) -> None:
    pipeline.inject_faults(
        {"function": "-transcribe_audio", "kind": "error", "error": "ServerError", "message": "x", "times": 9}
    )
    result = wait_for_result(pipeline, pipeline.upload(lips="video", audio="server", faces="none"))
    assert result["sources"]["audio"]["status"] == "failed"
    assert get_failures(result, "audio") == ["internal error (ServerError)"]
    assert result["segments"]


def test_recording_a_source_failure_is_retried(pipeline: Pipeline) -> None:
    pipeline.inject_faults(
        {"function": "-start_transcription", "kind": "error", "error": "SourceFailedError", "message": "no"},
        *({"function": "-record_source_failure", "kind": kind} for kind in ("unreachable", "exit", "twice")),
    )
    result = wait_for_result(pipeline, pipeline.upload(lips="video", audio="transcribe", faces="none"))
    assert get_failures(result, "audio") == ["no"]


def test_a_source_failure_that_cannot_be_recorded_fails_the_job(pipeline: Pipeline) -> None:
    pipeline.inject_faults(
        {"function": "-start_transcription", "kind": "error", "error": "SourceFailedError", "message": "no"},
        {"function": "-record_source_failure", "kind": "error", "error": "KeyError", "times": 9},
    )
    job = pipeline.wait_for_job(pipeline.upload(**TRANSCRIBE_ONLY))
    assert (job["state"], job["stage"]) == ("failed", "analyzing")
    assert job["failure"]["error"] == "KeyError"


def test_a_failed_window_is_reported_with_its_time_span(pipeline: Pipeline) -> None:
    pipeline.inject_faults(
        {"function": "-read_lips", "kind": "error", "error": "ServerError", "message": "x", "times": 1}
    )
    result = wait_for_result(pipeline, pipeline.upload(lips="video", audio="none", faces="none"))
    assert result["sources"]["lips"]["status"] == "partial"
    (failure,) = result["sources"]["lips"]["failures"]
    assert failure["reason"] == "internal error (ServerError)"
    assert failure["end_s"] > failure["start_s"]


@pytest.mark.parametrize("function", ["probe_media", "fuse_results", "complete_job"])
def test_failure_of_a_required_function_fails_the_job_with_the_reason(
    pipeline: Pipeline, function: str
) -> None:
    pipeline.inject_faults(
        {"function": f"-{function}", "kind": "error", "error": "ZeroDivisionError", "times": 9}
    )
    job = pipeline.wait_for_job(pipeline.upload(**TRANSCRIBE_ONLY))
    assert job["state"] == "failed"
    assert job["failure"] == {
        "error": "ZeroDivisionError",
        "reason": "internal error (ZeroDivisionError)",
    }
    reached = {"probe_media": "waiting", "fuse_results": "analyzing", "complete_job": "fusing"}
    assert job["stage"] == reached[function], "the stage in which it failed"


def test_a_failed_job_can_be_retried(pipeline: Pipeline) -> None:
    pipeline.inject_faults({"function": "-probe_media", "kind": "error", "times": 1})
    job_id = pipeline.upload(**TRANSCRIBE_ONLY)
    assert pipeline.wait_for_job(job_id)["state"] == "failed"
    response = pipeline.call("POST", f"/jobs/{job_id}/retry")
    assert response.status_code == 202, response.text
    result = wait_for_result(pipeline, job_id)
    assert words(result) == reference_words(pipeline.clip)
    assert pipeline.job(job_id)["attempt"] == 2


def test_a_job_whose_failure_cannot_be_recorded_fails_when_its_execution_ends(
    pipeline: Pipeline,
) -> None:
    pipeline.inject_faults(
        {"function": "-probe_media", "kind": "error", "times": 1},
        {"function": "-fail_job", "kind": "error", "error": "MemoryError", "times": 9},
    )
    job = pipeline.wait_for_job(pipeline.upload(**TRANSCRIBE_ONLY))
    assert job["state"] == "failed"
    assert job["failure"]["reason"] == "internal error (MemoryError)"


def test_a_job_without_any_source_fails_with_all_reasons(pipeline: Pipeline) -> None:
    pipeline.inject_faults(
        {
            "function": "-start_transcription",
            "kind": "error",
            "error": "SourceFailedError",
            "message": "no sound",
            "times": 9,
        },
        {
            "function": "-scale_up_fleet",
            "kind": "error",
            "error": "FleetTimeoutError",
            "message": "no fleet",
            "times": 9,
        },
    )
    job = pipeline.wait_for_job(pipeline.upload(lips="video", audio="transcribe", faces="none"))
    assert job["failure"]["error"] == "NoTranscriptError"
    assert "no sound" in job["failure"]["reason"]
    assert "no fleet" in job["failure"]["reason"]


@pytest.fixture(scope="module")
def done_job(pipeline: Pipeline) -> str:
    job_id = pipeline.upload(**TRANSCRIBE_ONLY)
    wait_for_result(pipeline, job_id)
    return job_id


ROUTES = {
    name: function["trigger"]["route"]
    for name, function in MANIFEST["functions"].items()
    if function["trigger"]["kind"] == "route"
}


@pytest.mark.parametrize("function", sorted(ROUTES, key="delete_job".__eq__))
def test_a_route_returns_500_while_its_function_fails_or_times_out(
    pipeline: Pipeline, done_job: str, function: str
) -> None:
    method, _, path = ROUTES[function].replace("$default", "GET /nothing").partition(" ")
    path = path.format(job_id=done_job)
    pipeline.inject_faults(
        *({"function": f"-{function}", "kind": kind, "after_s": 0.001} for kind in ("error", "timeout"))
    )
    statuses = [pipeline.call(method, path, json={}).status_code for _ in range(3)]
    assert statuses[:2] == [500, 500]
    assert statuses[2] < 500


def test_requests_are_denied_while_the_authorizer_fails(pipeline: Pipeline) -> None:
    pipeline.inject_faults({"function": "-authorize_request", "kind": "error"})
    refused, accepted = (pipeline.call("GET", "/jobs").status_code for _ in range(2))
    assert refused in (401, 403, 500)
    assert accepted == 200


def test_reconciliation_fails_a_job_whose_failure_was_not_recorded(
    pipeline: Pipeline,
) -> None:
    """Lambda would retry on AWS; here the test invokes the scheduled function."""
    pipeline.inject_faults(
        {"function": "-probe_media", "kind": "error", "times": 1},
        {"function": "-fail_job", "kind": "error", "times": 9},
        {"function": "-reconcile_jobs", "kind": "error", "times": 1},
    )
    job_id = pipeline.upload(**TRANSCRIBE_ONLY)
    wait_until(lambda: list_failed_invocations(pipeline, "reconcile_jobs"), pipeline)
    assert pipeline.job(job_id)["state"] == "running"
    pipeline.inject_faults({"function": "-reconcile_jobs", "kind": "twice"})
    pipeline.stack.client("lambda").invoke(
        FunctionName=f"{pipeline.stack.name}-reconcile_jobs", Payload=b"{}"
    )
    assert pipeline.job(job_id)["state"] == "failed"
    assert pipeline.call("GET", "/health", token=None).json()["running_jobs"] == 0


def list_failed_invocations(pipeline: Pipeline, function: str) -> list[dict[str, Any]]:
    return [
        entry
        for entry in pipeline.invocations()
        if entry["function"].endswith(f"-{function}") and entry["is_error"]
    ]


# ---------------------------------------------------------------------------------------------- services, media, server


def test_failures_of_transcribe_and_rekognition_degrade_the_result(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """The fake services fail without a reference transcript."""
    unknown = tmp_path / "unknown.mp4"
    unknown.write_bytes(pipeline.clip.read_bytes())
    job_id = pipeline.upload(unknown, lips="video", audio="transcribe", faces="rekognition")
    result = wait_for_result(pipeline, job_id)
    assert "Amazon Transcribe failed" in get_failures(result, "audio")[0]
    assert "Amazon Rekognition" in get_failures(result, "faces")[0]
    assert result["segments"], "lip reading succeeded"


@pytest.mark.parametrize("content", [b"\0" * 5000, b"not a video at all", DEMO.read_bytes()[:3000]])
def test_invalid_media_fails_the_job_with_the_reason(pipeline: Pipeline, content: bytes) -> None:
    upload = pipeline.request_upload(**ALL_SOURCES)
    pipeline.send(upload, content)
    job = pipeline.wait_for_job(upload["job_id"])
    assert job["failure"]["error"] == "InvalidMediaError"
    assert "cannot be decoded" in job["failure"]["reason"]


def test_an_unavailable_server_fails_only_lip_reading(pipeline: Pipeline, own_server: GpuServer) -> None:
    pipeline.configure("scale_up_fleet", FLEET_START_TIMEOUT_S="1")
    own_server.kill()
    try:
        result = wait_for_result(pipeline, pipeline.upload(lips="video", audio="transcribe", faces="none"))
    finally:
        pipeline.configure("scale_up_fleet", FLEET_START_TIMEOUT_S=str(TIMEOUT_S))
        own_server.start()
    assert "no GPU server became ready" in get_failures(result, "lips")[0]
    assert words(result) == reference_words(pipeline.clip)


@pytest.mark.drill
def test_a_job_waits_for_a_server_that_starts_late(pipeline: Pipeline, own_server: GpuServer) -> None:
    own_server.kill()
    delayed_start = threading.Timer(2.0, own_server.start)
    delayed_start.start()
    wait_for_full_result(pipeline, pipeline.upload(lips="video", audio="none", faces="none"))
    delayed_start.join()


def test_a_window_is_retried_after_the_server_dies_in_mid_stream(
    pipeline: Pipeline, own_server: GpuServer, interceptor: Interceptor
) -> None:
    """The SDK resumes the stream, or the state machine retries the window: either way with a new connection."""
    connections_at_death: list[int] = []

    def restart() -> None:
        own_server.kill()
        connections_at_death.append(interceptor.connection_count)
        own_server.start()

    has_died = interceptor.run_after(MID_STREAM_BYTES, restart)
    wait_for_full_result(pipeline, pipeline.upload(lips="video", audio="none", faces="none"))
    assert has_died.is_set()
    assert interceptor.connection_count > connections_at_death[0]


@pytest.mark.drill
def test_a_window_is_retried_after_the_server_stalls_in_mid_stream(
    pipeline: Pipeline, own_server: GpuServer, interceptor: Interceptor
) -> None:
    pipeline.configure("read_lips", SERVER_STALL_TIMEOUT_S="8")
    has_stalled = interceptor.run_after(MID_STREAM_BYTES, own_server.freeze)
    job_id = pipeline.upload(lips="video", audio="none", faces="none")
    try:
        assert has_stalled.wait(TIMEOUT_S), pipeline.describe_failures()
        wait_until(lambda: list_errors(pipeline, "ServerStalledError"), pipeline)
    finally:
        own_server.thaw()
        pipeline.configure("read_lips", SERVER_STALL_TIMEOUT_S=str(TIMEOUT_S))
    wait_for_full_result(pipeline, job_id)


def list_errors(pipeline: Pipeline, name: str) -> list[dict[str, Any]]:
    """Return the invocations of read_lips that ended with an error."""
    return [
        entry
        for entry in pipeline.invocations()
        if entry["function"].endswith("-read_lips") and entry["is_error"] and name in entry["payload"]
    ]


def wait_until(condition: Callable[[], Any], pipeline: Pipeline) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, pipeline.describe_failures()
        time.sleep(0.2)


# ------------------------------------------------------------------------------------------------- events and queues


def build_upload_event(pipeline: Pipeline, key: str, version_id: str) -> str:
    detail = {
        "version": "0",
        "bucket": {"name": pipeline.stack["bucket:uploads"]},
        "object": {"key": key, "size": 1, "etag": "x", "version-id": version_id, "sequencer": "1"},
        "request-id": "r",
        "requester": "q",
        "reason": "PutObject",
    }
    return json.dumps({"version": "0", "source": "aws.s3", "detail-type": "Object Created", "detail": detail})


def test_duplicate_upload_events_start_no_job(pipeline: Pipeline) -> None:
    job_id = pipeline.upload(**TRANSCRIBE_ONLY)
    wait_for_result(pipeline, job_id)
    item = pipeline.item(job_id)
    event = build_upload_event(pipeline, item["key"]["S"], item["version_id"]["S"])
    before = len(pipeline.executions())
    for _ in range(3):
        pipeline.stack.client("sqs").send_message(QueueUrl=pipeline.stack["queue:uploads"], MessageBody=event)
    wait_for_empty_queue(pipeline, "uploads")
    assert len(pipeline.executions()) == before
    assert pipeline.job(job_id)["state"] == "done"


def test_uploading_twice_with_one_form_creates_two_jobs(
    pipeline: Pipeline,
) -> None:
    upload = pipeline.request_upload(**TRANSCRIBE_ONLY)
    before = len(pipeline.executions())
    pipeline.send(upload, pipeline.clip.read_bytes())
    pipeline.send(upload, pipeline.clip.read_bytes())
    end = time.monotonic() + 120
    while len(pipeline.executions()) < before + 2:
        assert time.monotonic() < end
        time.sleep(0.2)
    listed = pipeline.call("GET", "/jobs").json()["jobs"]
    for job in listed[:2]:
        assert words(wait_for_result(pipeline, job["job_id"])) == reference_words(pipeline.clip)


def test_running_jobs_do_not_exceed_the_limit(pipeline: Pipeline) -> None:
    job_ids = [pipeline.upload(**TRANSCRIBE_ONLY) for _ in range(4)]
    max_running = 0
    end = time.monotonic() + 180
    while any(pipeline.job(job_id)["state"] not in ("done", "failed") for job_id in job_ids):
        # Counted in one response; an execution continues for a moment after its job has released its slot.
        listed = pipeline.call("GET", "/jobs").json()["jobs"]
        max_running = max(
            max_running, sum(job["state"] == "running" and job["job_id"] in job_ids for job in listed)
        )
        assert time.monotonic() < end, pipeline.describe_failures()
        time.sleep(0.1)
    assert max_running == 2
    assert [pipeline.job(job_id)["state"] for job_id in job_ids] == ["done"] * 4
    assert pipeline.call("GET", "/health", token=None).json()["running_jobs"] == 0


def test_an_event_that_always_fails_is_dead_lettered_and_can_be_redriven(
    pipeline: Pipeline,
) -> None:
    sqs = pipeline.stack.client("sqs")
    uploads, dead = pipeline.stack["queue:uploads"], pipeline.stack["queue:upload_failures"]
    sqs.set_queue_attributes(QueueUrl=uploads, Attributes={"VisibilityTimeout": "0"})
    job_id = pipeline.request_upload(**TRANSCRIBE_ONLY)["job_id"]
    pipeline.inject_faults({"function": "-start_job", "kind": "error", "times": 100})
    key = f"uploads/{job_id}/demo.mp4"
    version = pipeline.stack.client("s3").put_object(
        Bucket=pipeline.stack["bucket:uploads"], Key=key, Body=pipeline.clip.read_bytes()
    )["VersionId"]
    assert version
    end = time.monotonic() + 60
    while count_messages(pipeline, "upload_failures") == 0:
        assert time.monotonic() < end
        time.sleep(0.2)
    pipeline.inject_faults()
    message = sqs.receive_message(QueueUrl=dead)["Messages"][0]
    sqs.send_message(QueueUrl=uploads, MessageBody=message["Body"])
    assert words(wait_for_result(pipeline, job_id)) == reference_words(pipeline.clip)


def count_messages(pipeline: Pipeline, queue: str) -> int:
    response = pipeline.stack.client("sqs").get_queue_attributes(
        QueueUrl=pipeline.stack[f"queue:{queue}"],
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )
    return sum(int(value) for value in response["Attributes"].values())


def wait_for_empty_queue(pipeline: Pipeline, queue: str) -> None:
    end = time.monotonic() + 30
    while count_messages(pipeline, queue):
        assert time.monotonic() < end
        time.sleep(0.1)
