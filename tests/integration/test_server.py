"""The server as a whole: health, reflection, models, limits, S3, signals and TLS."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import grpc
import pytest
import trustme
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from moto import mock_aws

from gorggle import Client
from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, media_pb2, model_pb2, server_pb2
from tests.integration.conftest import DEMO, Messages, RunningServer, running_server

SERVICE = "gorggle.v1.LipReading"


def get_health(address: str, service: str = SERVICE) -> str:
    with grpc.insecure_channel(address) as channel:
        response = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=10
        )
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def test_a_server_without_loaded_models_is_not_serving() -> None:
    with running_server(load=False) as running:
        assert get_health(running.address) == get_health(running.address, "") == "NOT_SERVING"
        with grpc.insecure_channel(running.address) as channel:
            stub = lip_reading_pb2_grpc.LipReadingStub(channel)
            for call in (
                lambda: stub.ListModels(model_pb2.ListModelsRequest(), timeout=10),
                lambda: stub.Recognize(lip_reading_pb2.RecognizeRequest(content=b"x"), timeout=10),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    call()
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert "loaded" in caught.value.details()
        running.call(running.server.load())
        assert get_health(running.address) == "SERVING"


def test_reflection_lists_the_services(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (response,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    names = {service.name for service in response.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


def test_the_embedded_model_describes_itself_and_its_license(stub) -> None:
    model = stub.GetModel(model_pb2.GetModelRequest(), timeout=10)
    assert model == stub.GetModel(model_pb2.GetModelRequest(), timeout=10)
    assert model.name == "gorggle-mini-1"
    assert model.architecture == "av_hubert"
    assert model.parameter_count > 1_000_000
    assert model.license.name == "Apache-2.0"
    assert model.license.commercial_use == model_pb2.COMMERCIAL_USE_PERMITTED
    assert "rendered" in model.trained_on
    assert len(model.error_rates) >= 3
    assert {rate.modality for rate in model.error_rates} >= {
        config_pb2.MODALITY_VIDEO_ONLY,
        config_pb2.MODALITY_AUDIO_VISUAL,
    }
    assert len(model.sha256) == 64


def test_server_info_contains_limits_and_load(stub) -> None:
    info = MessageToDict(stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10))
    assert info["defaultModel"] == "gorggle-mini-1"
    assert info["limits"]["maxStreamDuration"] == "14400s"
    assert int(info["limits"]["maxMessageBytes"]) == 32 * 2**20
    assert info["capacity"]["maxStreams"] == 8


def test_a_call_above_the_stream_limit_is_refused_with_a_retry_delay(messages: Messages) -> None:
    with running_server(max_streams=1) as running, grpc.insecure_channel(running.address) as channel:
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        released = threading.Event()

        def send_and_wait() -> Iterator[lip_reading_pb2.StreamingRecognizeRequest]:
            yield from messages(DEMO.read_bytes()[:20_000])
            released.wait(60)

        first = stub.StreamingRecognize(send_and_wait(), timeout=60)
        next(first)
        start_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.StreamingRecognize(messages(b"x"), timeout=60))
        assert time.monotonic() - start_s < 5  # the first stream holds its slot for longer
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "grpc-status-details-bin" in dict(caught.value.trailing_metadata())
        assert stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10).capacity.active_streams == 1
        first.cancel()
        released.set()


def test_a_message_above_the_size_limit_is_refused() -> None:
    with (
        running_server(load=False, max_message_bytes=2**16) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Recognize(lip_reading_pb2.RecognizeRequest(content=b"x" * 2**17), timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_media_above_the_duration_limit_is_out_of_range(messages: Messages) -> None:
    with (
        running_server(max_stream_duration_s=5, max_clip_duration_s=5) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=60))
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
        crops = media_pb2.MouthCrops(pixels=bytes(9216), offsets=[Duration(seconds=6)])
        preprocessed = lip_reading_pb2.PreprocessedClip(mouth_crops=[crops])
        with pytest.raises(grpc.RpcError) as caught:
            stub.Recognize(lip_reading_pb2.RecognizeRequest(preprocessed=preprocessed), timeout=60)
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="clips", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        s3.put_object(Bucket="clips", Key="an interview/demo.mp4", Body=DEMO.read_bytes())
        yield "clips"


def test_a_clip_in_an_allowed_s3_bucket_is_transcribed(bucket: str) -> None:
    def recognize(stub, uri: str) -> lip_reading_pb2.RecognizeResponse:
        return stub.Recognize(lip_reading_pb2.RecognizeRequest(uri=uri), timeout=60)

    with running_server(s3_buckets=[bucket]) as running, grpc.insecure_channel(running.address) as channel:
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        assert len(recognize(stub, "s3://clips/an%20interview/demo.mp4").segments) >= 2
        for uri, code in {
            "s3://clips/nothing.mp4": grpc.StatusCode.NOT_FOUND,
            "s3://another/demo.mp4": grpc.StatusCode.INVALID_ARGUMENT,
            "https://clips/demo.mp4": grpc.StatusCode.INVALID_ARGUMENT,
            "file:///etc/passwd": grpc.StatusCode.INVALID_ARGUMENT,
            "s3://clips": grpc.StatusCode.INVALID_ARGUMENT,
        }.items():
            with pytest.raises(grpc.RpcError) as caught:
                recognize(stub, uri)
            assert caught.value.code() is code, uri


def test_a_model_in_s3_is_fetched_and_another_file_is_refused(bucket: str) -> None:
    from gorggle_server.errors import ModelFormatError
    from gorggle_server.inference.model_registry import load_models
    from gorggle_server.settings import EMBEDDED_MODEL, ServerSettings

    s3 = boto3.client("s3")
    s3.put_object(Bucket=bucket, Key="mine.safetensors", Body=EMBEDDED_MODEL.read_bytes())
    s3.put_object(Bucket=bucket, Key="text.safetensors", Body=b"not a model")
    catalog = load_models(
        ServerSettings(models={"mine": "s3://clips/mine.safetensors"}, default_model="mine")
    )
    assert [served.name for served in catalog][:2] == ["mine", "gorggle-mini-1"]
    assert catalog["mine"].sha256 == catalog["gorggle-mini-1"].sha256
    with pytest.raises(ModelFormatError):
        load_models(ServerSettings(models={"text": "s3://clips/text.safetensors"}))


# ----------------------------------------------------------------------------------------------------- as a subprocess


def start_server(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gorggle_server", "--listen", "127.0.0.1:0", "--print-ready", *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_address(process: subprocess.Popen[str]) -> str:
    return json.loads(process.stdout.readline())["listening"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_shuts_the_server_down_cleanly(number: int) -> None:
    with start_server() as process:
        assert get_health(read_address(process)) == "SERVING"
        process.send_signal(number)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()


def test_a_call_in_flight_is_finished_after_sigterm(messages: Messages) -> None:
    with start_server() as process, grpc.insecure_channel(read_address(process)) as channel:
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        call = stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=60)
        next(call)
        process.send_signal(signal.SIGTERM)
        assert [response.WhichOneof("event") for response in call][-1] == "finished"
        assert process.wait(20) == 0


def test_the_server_exits_when_stdin_closes() -> None:
    with start_server("--exit-on-stdin-eof") as process:
        read_address(process)
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_port_in_use_is_reported_in_one_line(server: RunningServer) -> None:
    command = [sys.executable, "-m", "gorggle_server", "--listen", server.address]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 1
    assert "Traceback" not in completed.stderr
    assert f"cannot listen on {server.address}" in completed.stderr


# -------------------------------------------------------------------------------------------------------- credentials


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a CA, certificates of a server and a client, and a client certificate of another CA."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, other_authority = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, issuer in (("server", authority), ("client", authority), ("unknown", other_authority)):
        certificate = issuer.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        for number, pem in enumerate(certificate.cert_chain_pems):
            pem.write_to_path(folder / f"{name}.pem", append=number > 0)
    return folder


@pytest.fixture(scope="module")
def secure_server(certificates: Path) -> Iterator[RunningServer]:
    with running_server(
        tls_certificate=certificates / "server.pem",
        tls_key=certificates / "server.key",
        tls_client_ca=certificates / "ca.pem",
    ) as running:
        yield running


def secure_call(server: RunningServer, certificates: Path, name: str | None) -> str:
    pair = (
        [(certificates / f"{name}{end}").read_bytes() for end in (".key", ".pem")] if name else [None, None]
    )
    credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes(), *pair)
    with grpc.secure_channel(server.address, credentials) as channel:
        return lip_reading_pb2_grpc.LipReadingStub(channel).GetServerInfo(
            server_pb2.GetServerInfoRequest(), timeout=5
        ).default_model  # fmt: skip


def test_a_client_with_a_certificate_is_served(secure_server: RunningServer, certificates: Path) -> None:
    assert secure_call(secure_server, certificates, "client") == "gorggle-mini-1"


@pytest.mark.parametrize("name", [None, "unknown"])
def test_an_unknown_client_is_refused(
    secure_server: RunningServer, certificates: Path, name: str | None
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        secure_call(secure_server, certificates, name)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_a_plaintext_client_is_refused_by_a_tls_server(secure_server: RunningServer) -> None:
    with grpc.insecure_channel(secure_server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        lip_reading_pb2_grpc.LipReadingStub(channel).GetServerInfo(
            server_pb2.GetServerInfoRequest(), timeout=5
        )
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_the_sdk_connects_with_mutual_tls(secure_server: RunningServer, certificates: Path) -> None:
    with Client(
        secure_server.address,
        root_certificates=certificates / "ca.pem",
        client_certificate=certificates / "client.pem",
        client_key=certificates / "client.key",
    ) as client:
        assert client.server_info().default_model == "gorggle-mini-1"
