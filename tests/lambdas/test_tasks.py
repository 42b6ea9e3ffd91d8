"""Tests of the state machine's tasks against moto and a real gRPC server with mutual TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import jsonschema
import pytest
import trustme
from botocore.exceptions import ClientError
from moto import mock_aws

from gorggle.errors import AuthenticationError, NoFaceError, OverloadedError, UnavailableError
from gorggle.v1 import lip_reading_pb2_grpc
from gorggle_fusion.result import load_result_schema
from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.errors import (
    AwsUnavailableError,
    FleetTimeoutError,
    InvalidMediaError,
    JobNotFoundError,
    NoTranscriptError,
    ObjectNotFoundError,
    ServerStalledError,
    SourceFailedError,
    SourceTimeoutError,
    WindowMissingError,
)
from gorggle_lambdas.common.task_events import compute_deadline
from gorggle_local.aws.pipeline import Server
from tests.e2e.emulator import fake_services
from tests.lambdas.moto_environment import JOB_ID, SERVER_NAME, Cloud, LambdaContext, create_cloud, job_event
from tests.sdk import fake_service
from tests.sdk.fake_service import FakeLipReading

ROOT = Path(__file__).resolve().parents[2]
DEMO = (ROOT / "examples" / "demo.mp4").read_bytes()
TRUTH = json.loads((ROOT / "examples" / "demo.json").read_text())
WORK = f"jobs/{JOB_ID}/work/1/"
WINDOW = {"index": 0, "start_s": 0.0, "end_s": 19.968}


@dataclass
class GpuServer:
    """A scripted gRPC server with mutual TLS, and an AWS account with a matching secret."""

    service: FakeLipReading
    cloud: Cloud


@pytest.fixture
def gpu_server() -> Iterator[GpuServer]:
    ca = trustme.CA()
    server_pair, client = ca.issue_cert(SERVER_NAME), ca.issue_cert("lambda")
    credentials = grpc.ssl_server_credentials(
        [(server_pair.private_key_pem.bytes(), server_pair.cert_chain_pems[0].bytes())],
        root_certificates=ca.cert_pem.bytes(),
        require_client_auth=True,
    )
    service = FakeLipReading()
    with futures.ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        lip_reading_pb2_grpc.add_LipReadingServicer_to_server(service, server)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        with mock_aws():
            pem = [
                text.bytes().decode()
                for text in (ca.cert_pem, client.cert_chain_pems[0], client.private_key_pem)
            ]
            yield GpuServer(service, create_cloud(Server(f"127.0.0.1:{port}", SERVER_NAME, *pem)))
        server.stop(None).wait()


# -------------------------------------------------------------------------------------------------------------- probing


def test_a_video_is_probed_into_audio_noise_and_windows(cloud: Cloud) -> None:
    cloud.settings["window_duration_s"] = 8
    response = cloud.call("probe_media", job_event(cloud, DEMO))
    assert response["audio"] == "transcribe"
    assert response["has_inline_windows"]
    assert response["window_count"] == len(response["windows"]) >= 2
    assert cloud.document(WORK + "windows.json") == response["windows"]
    assert cloud.document(WORK + "plan.json")["media"]["duration_s"] == response["duration_s"]
    assert cloud.document(WORK + "noise.json")["spans"][0]["snr_db"] > 20
    wav = cloud.client("s3").head_object(Bucket=cloud.stack["bucket:results"], Key=WORK + "audio.wav")
    assert wav["ContentLength"] == pytest.approx(19.968 * 32000, rel=0.01)
    item = cloud.item(JOB_ID)
    assert item is not None
    assert item["stage"] == "analyzing"
    assert item["estimate"]["total"] > 0


def test_no_cost_is_estimated_without_prices(cloud: Cloud) -> None:
    cloud.settings["prices"] = "none"
    cloud.call("probe_media", job_event(cloud, DEMO))
    item = cloud.item(JOB_ID)
    assert item is not None
    assert item["stage"] == "analyzing"
    assert "estimate" not in item


@pytest.mark.parametrize("content", [b"poison", DEMO[:3000]])
def test_undecodable_media_is_rejected(cloud: Cloud, content: bytes) -> None:
    with pytest.raises(InvalidMediaError, match="cannot be decoded"):
        cloud.call("probe_media", job_event(cloud, content))


def test_a_deleted_video_raises_object_not_found(cloud: Cloud) -> None:
    with pytest.raises(ObjectNotFoundError):
        cloud.call("probe_media", job_event(cloud))


def test_a_deleted_job_raises_job_not_found(cloud: Cloud) -> None:
    event = job_event(cloud, DEMO)
    cloud.client("dynamodb").delete_item(TableName=cloud.stack["table:jobs"], Key={"job_id": {"S": JOB_ID}})
    with pytest.raises(JobNotFoundError):
        cloud.call("probe_media", event)


def test_a_transient_aws_error_becomes_aws_unavailable(cloud: Cloud) -> None:
    event = job_event(cloud, DEMO)
    throttled = ClientError(
        {"Error": {"Code": "SlowDown", "Message": "slow down"}, "ResponseMetadata": {"HTTPStatusCode": 503}},
        "HeadObject",
    )
    with (
        patch("gorggle_lambdas.handlers.probe_media.S3File", side_effect=throttled),
        pytest.raises(AwsUnavailableError, match="HeadObject"),
    ):
        cloud.call("probe_media", event)
    denied = ClientError(
        {"Error": {"Code": "AccessDenied", "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 403}},
        "HeadObject",
    )
    assert aws_clients.as_transient_error(denied) is None


# -------------------------------------------------------------------------------------------------------- transcription


def test_a_transcription_is_started_once_with_speaker_labels(cloud: Cloud) -> None:
    event = job_event(cloud)
    first = cloud.call("start_transcription", event)
    assert cloud.call("start_transcription", event)["name"] == first["name"]
    job = cloud.client("transcribe").get_transcription_job(TranscriptionJobName=first["name"])[
        "TranscriptionJob"
    ]
    assert job["Settings"]["ShowSpeakerLabels"]
    assert job["Media"]["MediaFileUri"].endswith("audio.wav")


def test_a_transcription_is_polled_and_its_result_validated(cloud: Cloud) -> None:
    event = job_event(cloud)
    transcription = cloud.call("start_transcription", event)
    assert cloud.call("check_transcription", {**event, "audio": transcription}) == {
        **transcription,
        "is_done": False,
    }
    document = fake_services.build_transcription(TRUTH, transcription["name"])
    put = cloud.client("s3").put_object
    answers = []
    for _ in range(3):
        put(
            Bucket=cloud.stack["bucket:results"],
            Key=WORK + "audio/transcription.json",
            Body=json.dumps(document),
        )
        answers.append(cloud.call("check_transcription", {**event, "audio": transcription})["is_done"])
    assert answers[-1]


def patch_transcription_job(**job: Any) -> Any:
    response = {"TranscriptionJob": job}
    client = type("Transcribe", (), {"get_transcription_job": lambda *_, **__: response})
    return patch("gorggle_lambdas.handlers.check_transcription.aws_clients.client", return_value=client())


@pytest.mark.parametrize(
    ("job", "timeout_s", "error"),
    [
        ({"TranscriptionJobStatus": "FAILED", "FailureReason": "unsupported"}, 60, SourceFailedError),
        ({"TranscriptionJobStatus": "IN_PROGRESS"}, -1, SourceTimeoutError),
    ],
)
def test_a_failed_or_late_transcription_raises(
    cloud: Cloud, job: dict[str, Any], timeout_s: float, error: type[Exception]
) -> None:
    event = {
        **job_event(cloud),
        "audio": {"name": "n", "is_done": False, "deadline": compute_deadline(timeout_s)},
    }
    with patch_transcription_job(**job), pytest.raises(error):
        cloud.call("check_transcription", event)


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, AwsUnavailableError), (b"{", SourceFailedError), (b'{"results": 3}', SourceFailedError)],
)
def test_an_invalid_transcript_fails_only_the_audio_source(
    cloud: Cloud, content: bytes | None, error: type[Exception]
) -> None:
    from gorggle_lambdas.handlers.check_transcription import _validate_result

    key = WORK + "audio/transcription.json"
    if content is not None:
        cloud.client("s3").put_object(Bucket=cloud.stack["bucket:results"], Key=key, Body=content)
    with pytest.raises(error):
        _validate_result(cloud.stack["bucket:results"], key)


# ---------------------------------------------------------------------------------------------------------------- faces


class FakeRekognition:
    """Fake of the service, because moto has no face detection in video."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages = list(pages)
        self.requests: list[dict[str, Any]] = []

    def start_face_detection(self, **request: Any) -> dict[str, str]:
        self.requests.append(request)
        return {"JobId": "search-1"}

    def get_face_detection(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        return self.pages[int(request.get("NextToken", 0))]


def patch_rekognition(service: FakeRekognition) -> Any:
    real = aws_clients.client
    return patch.object(aws_clients, "client", lambda name: service if name == "rekognition" else real(name))


def test_face_detection_is_started_for_this_version_of_the_video(cloud: Cloud) -> None:
    service, event = FakeRekognition(), job_event(cloud, DEMO)
    with patch_rekognition(service):
        assert cloud.call("start_face_detection", event)["rekognition_job_id"] == "search-1"
    (request,) = service.requests
    assert request["Video"]["S3Object"]["Version"] == event["job"]["version_id"]
    assert request["ClientRequestToken"] == f"{JOB_ID}-1"


def test_every_page_of_faces_is_stored(cloud: Cloud) -> None:
    pages = [fake_services.build_face_detection(TRUTH, page=page, page_faces=20) for page in range(2)]
    event = {
        **job_event(cloud),
        "faces": {"rekognition_job_id": "search-1", "is_done": False, "deadline": compute_deadline(9)},
    }
    with patch_rekognition(FakeRekognition(*pages)):
        assert cloud.call("check_face_detection", event)["pages"] == 2
    assert len(cloud.document(WORK + "faces/0000.json")["Faces"]) == 20
    assert "NextToken" not in cloud.document(WORK + "faces/0001.json")


@pytest.mark.parametrize(
    ("page", "timeout_s", "error"),
    [
        ({"JobStatus": "FAILED", "StatusMessage": "codec"}, 9, SourceFailedError),
        ({"JobStatus": "IN_PROGRESS"}, -1, SourceTimeoutError),
    ],
)
def test_a_failed_or_late_face_detection_raises(
    cloud: Cloud, page: dict[str, Any], timeout_s: float, error: type[Exception]
) -> None:
    event = {
        **job_event(cloud),
        "faces": {"rekognition_job_id": "s", "is_done": False, "deadline": compute_deadline(timeout_s)},
    }
    with patch_rekognition(FakeRekognition(page)), pytest.raises(error):
        cloud.call("check_face_detection", event)


# ------------------------------------------------------------------------------------------------------------ the fleet


class FakeAutoScaling:
    """Fake Auto Scaling client that records the requested capacities."""

    def __init__(self, *groups: dict[str, int]) -> None:
        self.groups = [{"DesiredCapacity": 0, "MaxSize": 2, **group} for group in groups]
        self.requested_capacities: list[int] = []

    def describe_auto_scaling_groups(self, **_: Any) -> dict[str, Any]:
        return {"AutoScalingGroups": self.groups}

    def set_desired_capacity(self, **request: Any) -> None:
        self.requested_capacities.append(request["DesiredCapacity"])


@pytest.mark.parametrize(("desired", "set_to"), [(0, [1]), (1, []), (2, [])])
def test_the_fleet_is_scaled_up_but_never_down(cloud: Cloud, desired: int, set_to: list[int]) -> None:
    scaling = FakeAutoScaling({"DesiredCapacity": desired})
    with patch("gorggle_lambdas.handlers.scale_up_fleet.aws_clients.client", return_value=scaling):
        assert not cloud.call("scale_up_fleet", job_event(cloud))["is_ready"]
    assert scaling.requested_capacities == set_to


@pytest.mark.parametrize("groups", [(), ({"MaxSize": 0},)])
def test_a_missing_or_disabled_fleet_raises(cloud: Cloud, groups: tuple[dict[str, int], ...]) -> None:
    with (
        patch(
            "gorggle_lambdas.handlers.scale_up_fleet.aws_clients.client",
            return_value=FakeAutoScaling(*groups),
        ),
        pytest.raises(FleetTimeoutError),
    ):
        cloud.call("scale_up_fleet", {"job": {}})


def test_a_ready_server_is_detected_over_mutual_tls(gpu_server: GpuServer) -> None:
    fleet = {"is_ready": False, "deadline": compute_deadline(60)}
    assert gpu_server.cloud.call("check_fleet", {"job": {}, "fleet": fleet})["is_ready"]


def test_an_unreachable_server_is_retried_until_the_deadline(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("x")
    texts = [
        pem.bytes().decode() for pem in (authority.cert_pem, pair.cert_chain_pems[0], pair.private_key_pem)
    ]
    secret = dict(zip(("ca", "certificate", "key"), texts, strict=True))
    cloud.client("secretsmanager").put_secret_value(
        SecretId=cloud.stack["secret:server_client"], SecretString=json.dumps(secret)
    )
    with patch("gorggle_lambdas.handlers.check_fleet.READY_TIMEOUT_S", 0.2):
        waiting = {"is_ready": False, "deadline": compute_deadline(60)}
        assert cloud.call("check_fleet", {"job": {}, "fleet": waiting}) == waiting
        with pytest.raises(FleetTimeoutError, match="no GPU server became ready"):
            cloud.call("check_fleet", {"job": {}, "fleet": {**waiting, "deadline": compute_deadline(-1)}})
    assert capsys.readouterr().out.count('"FleetNotReadyChecks":[1.0]') == 2, "an alarm uses this metric"


# ------------------------------------------------------------------------------------------------- transcribing windows


def transcribe_window(
    gpu_server: GpuServer, function: str = "read_lips", remaining_s: float = 60.0, **options: str
) -> Any:
    event = job_event(gpu_server.cloud, DEMO, **options)
    if function == "transcribe_audio":
        gpu_server.cloud.call("probe_media", event)
    return gpu_server.cloud.call(
        function, {**event, "window": WINDOW}, LambdaContext(remaining_s=remaining_s)
    )


def test_a_window_is_transcribed_and_stored_for_fusion(gpu_server: GpuServer) -> None:
    assert transcribe_window(gpu_server) == {"index": 0, "segments": 1}
    document = gpu_server.cloud.document(WORK + "lips/0000.json")
    (segment,) = document["window"]["segments"]
    assert segment["modality"] == "av"
    assert [word["text"] for word in segment["words"]] == ["bin", "blue", "at", "f", "two", "now"]
    assert document["model"]["licence"] == "Apache-2.0"
    assert not document["model"]["has_open_vocabulary"]
    assert gpu_server.service.config is not None
    assert gpu_server.service.config.recognition.enable_face_boxes
    assert gpu_server.service.config.recognition.audio_model == "none", (
        "fusion decides between lips and audio"
    )
    item = gpu_server.cloud.item(JOB_ID)
    assert item is not None
    assert item["windows"] == {"lips-0": 19.968}


def test_the_audio_of_a_window_is_sent_in_audio_mode(gpu_server: GpuServer) -> None:
    assert transcribe_window(gpu_server, "transcribe_audio", audio="server")["segments"] == 1
    sent = sum(len(request.pcm.samples) for request in gpu_server.service.requests)
    assert sent == pytest.approx(19.968 * 32000, abs=64)


def test_audio_may_be_transcribed_with_the_second_model_of_the_server(gpu_server: GpuServer) -> None:
    gpu_server.service.default_audio_model = "speech"
    assert transcribe_window(gpu_server, "transcribe_audio", audio="server")["segments"] == 1
    assert gpu_server.service.config is not None
    assert not gpu_server.service.config.recognition.audio_model, "the server's default"
    document = gpu_server.cloud.document(WORK + "audio/0000.json")
    assert (document["model"]["name"], document["model"]["has_open_vocabulary"]) == ("grid with speech", True)


def failing_script(code: grpc.StatusCode, cause: str = "") -> Any:
    def script(requests: Any, context: Any) -> Any:
        yield fake_service.started()
        if cause:
            context.set_trailing_metadata([fake_service.error_trailer(code, "refused", reason=cause)])
        context.abort(code, "refused")

    return script


@pytest.mark.parametrize(
    ("code", "cause", "error"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "NO_FACE", NoFaceError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", OverloadedError),
        (grpc.StatusCode.UNAVAILABLE, "NOT_READY", UnavailableError),
        (grpc.StatusCode.UNAUTHENTICATED, "", AuthenticationError),
    ],
)
def test_server_errors_keep_their_names(
    gpu_server: GpuServer, code: grpc.StatusCode, cause: str, error: type[Exception]
) -> None:
    gpu_server.service.script = failing_script(code, cause)
    with pytest.raises(error) as raised:
        transcribe_window(gpu_server)
    assert type(raised.value) is error
    assert WORK + "lips/0000.json" not in gpu_server.cloud.result_keys()


def test_a_stalled_server_raises(gpu_server: GpuServer) -> None:
    def silent_script(requests: Any, context: Any) -> Any:
        yield fake_service.started()
        list(requests)
        gpu_server.service.ended.wait(20)

    gpu_server.service.script = silent_script
    gpu_server.cloud.settings["server_stall_timeout_s"] = 1
    with pytest.raises(ServerStalledError, match="stopped responding for 1 s"):
        transcribe_window(gpu_server)


def test_progress_is_recorded_during_a_transcription(gpu_server: GpuServer) -> None:
    recorded: list[Any] = []

    def slow_script(requests: Any, context: Any) -> Any:
        yield fake_service.started()
        list(requests)
        yield fake_service.progress(8, 7.5)
        for _ in range(100):
            item = gpu_server.cloud.item(JOB_ID)
            if item and item["windows"]:
                recorded.append(item["windows"])
                break
            gpu_server.service.ended.wait(0.05)
        yield fake_service.finished()

    gpu_server.service.script = slow_script
    transcribe_window(gpu_server)
    assert recorded == [{"lips-0": 7.5}]


# -------------------------------------------------------------------------------------------------------------- failures


def test_a_failed_window_is_recorded_with_times_and_reason(cloud: Cloud) -> None:
    error = {
        "Error": "NoFaceError",
        "Cause": json.dumps({"errorMessage": "no face", "errorType": "NoFaceError"}),
    }
    event = {**job_event(cloud), "source": "lips", "error": error, "window": WINDOW}
    for _ in range(2):
        assert cloud.call("record_source_failure", event)["is_failed"]
    stored = cloud.document(WORK + "failures/lips/0000.json")
    assert (stored["reason"], stored["start"], stored["end"]) == ("no face", 0.0, 19.968)


def test_an_unknown_source_is_rejected(cloud: Cloud) -> None:
    with pytest.raises(ValueError, match="eyes"):
        cloud.call("record_source_failure", {**job_event(cloud), "source": "eyes", "error": {}})


# --------------------------------------------------------------------------------------------------------------- fusion


def store_document(cloud: Cloud, name: str, document: Any) -> None:
    cloud.client("s3").put_object(
        Bucket=cloud.stack["bucket:results"], Key=WORK + name, Body=json.dumps(document)
    )


@pytest.fixture
def probed_job(cloud: Cloud) -> dict[str, Any]:
    """Probe a job; return its event. No source has a result yet."""
    event = job_event(cloud, DEMO)
    cloud.call("probe_media", event)
    return event


def lips_window(**extra: Any) -> dict[str, Any]:
    words = [
        {"text": "bin", "start": 1.0, "end": 1.4, "confidence": 0.9},
        {"text": "blue", "start": 1.4, "end": 1.8, "confidence": 0.9},
    ]
    boxes = [{"time": 1.0, "left": 0.4, "top": 0.3, "width": 0.2, "height": 0.3}]
    segment = {
        "start": 1.0,
        "end": 1.8,
        "text": "bin blue",
        "speaker": "face-1",
        "confidence": 0.9,
        "modality": "video",
        "words": words,
        "face_boxes": boxes,
    }
    return {
        "window": {"start": 0.0, "end": 19.968, "segments": [segment]},
        "model": {"name": "m", "licence": "free", "licence_summary": "", "licence_url": ""},
        "warnings": [],
        "processing_s": 4.0,
        **extra,
    }


def fused_result(cloud: Cloud) -> dict[str, Any]:
    document: dict[str, Any] = cloud.document(f"jobs/{JOB_ID}/results/1-1/result.json")
    jsonschema.validate(document, load_result_schema())
    return document


def test_all_sources_are_fused_and_published_in_every_format(
    cloud: Cloud, probed_job: dict[str, Any]
) -> None:
    store_document(cloud, "lips/0000.json", lips_window())
    store_document(cloud, "audio/transcription.json", fake_services.build_transcription(TRUTH, "n"))
    store_document(
        cloud, "faces/0000.json", fake_services.build_face_detection(TRUTH, page=0, page_faces=1000)
    )
    response = cloud.call("fuse_results", probed_job)
    assert response["sources"] == {"lips": "used", "audio": "used", "faces": "used"}
    assert response["usage"] == {
        "windows": 1,
        "transcribed_s": 19.968,
        "face_detection_s": 19.968,
        "gpu_s": 4.0,
    }
    result = fused_result(cloud)
    assert result["segments"][0]["words"][0]["source"] == "both"
    extensions = {key.rpartition(".")[2] for key in cloud.result_keys() if "/results/" in key}
    assert extensions == {"json", "vtt", "srt", "ttml", "txt"}


def test_words_of_a_closed_vocabulary_are_marked_in_the_captions(
    cloud: Cloud, probed_job: dict[str, Any]
) -> None:
    document = lips_window()
    document["model"]["has_open_vocabulary"] = False
    document["window"]["segments"][0]["doubtful"] = True
    store_document(cloud, "lips/0000.json", document)
    store_document(cloud, "failures/audio.json", {"source": "audio", "reason": "audio error", "error": "X"})
    store_document(cloud, "failures/faces.json", {"source": "faces", "reason": "face error", "error": "X"})
    cloud.call("fuse_results", probed_job)
    assert fused_result(cloud)["model"]["has_open_vocabulary"] is False
    for extension in ("vtt", "srt", "ttml", "txt"):
        assert "(?) bin blue" in cloud.text(f"jobs/{JOB_ID}/results/1-1/result.{extension}")


def test_a_failed_source_is_reported_in_the_result(cloud: Cloud, probed_job: dict[str, Any]) -> None:
    store_document(cloud, "lips/0000.json", lips_window())
    store_document(cloud, "failures/audio.json", {"source": "audio", "reason": "audio error", "error": "X"})
    store_document(cloud, "failures/faces.json", {"source": "faces", "reason": "face error", "error": "X"})
    assert cloud.call("fuse_results", probed_job)["is_degraded"]
    sources = fused_result(cloud)["sources"]
    assert sources["audio"] == {
        "status": "failed",
        "engine": "Amazon Transcribe",
        "failures": [{"reason": "audio error"}],
    }
    assert sources["lips"]["status"] == "used"


def test_a_window_without_a_face_is_reported(cloud: Cloud) -> None:
    event = job_event(cloud, DEMO, audio="none", faces="server")
    cloud.call("probe_media", event)
    store_document(
        cloud,
        "lips/0000.json",
        lips_window(warnings=[{"kind": "no_face", "message": "no face was detected"}]),
    )
    cloud.call("fuse_results", event)
    result = fused_result(cloud)
    assert result["sources"]["lips"]["status"] == "partial"
    assert result["sources"]["faces"]["status"] == "used"
    assert result["sources"]["audio"]["status"] == "absent"


def test_without_any_transcript_fusion_fails_with_all_reasons(
    cloud: Cloud, probed_job: dict[str, Any]
) -> None:
    failure = {"source": "lips", "reason": "no fleet", "error": "X", "start": 0.0, "end": 19.968, "index": 0}
    store_document(cloud, "failures/lips/0000.json", failure)
    store_document(cloud, "failures/audio.json", {"source": "audio", "reason": "no audio", "error": "X"})
    store_document(cloud, "failures/faces.json", {"source": "faces", "reason": "no eyes", "error": "X"})
    with pytest.raises(NoTranscriptError, match="lips: no fleet; audio: no audio"):
        cloud.call("fuse_results", probed_job)


def test_a_window_without_result_or_failure_is_an_error(cloud: Cloud, probed_job: dict[str, Any]) -> None:
    store_document(cloud, "audio/transcription.json", fake_services.build_transcription(TRUTH, "n"))
    store_document(
        cloud, "faces/0000.json", fake_services.build_face_detection(TRUTH, page=0, page_faces=1000)
    )
    with pytest.raises(WindowMissingError, match="window 0 of lips"):
        cloud.call("fuse_results", probed_job)


def test_a_missing_transcript_is_an_error(cloud: Cloud, probed_job: dict[str, Any]) -> None:
    store_document(cloud, "lips/0000.json", lips_window())
    with pytest.raises(KeyError):
        cloud.call("fuse_results", probed_job)
