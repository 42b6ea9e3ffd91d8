"""Sandboxed decoding: a decoder process that is killed, stopped or abandoned only fails its own stream."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gorggle import Client
from gorggle.v1 import lip_reading_pb2, lip_reading_pb2_grpc
from gorggle_server.__main__ import _create_parser
from gorggle_server.errors import PreconditionError
from gorggle_server.grpc_server import server as server_module
from gorggle_server.streaming import media_pipeline
from tests.integration.conftest import DEMO, Messages, RunningServer, running_server

Stub = lip_reading_pb2_grpc.LipReadingStub
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")


@pytest.fixture
def own_server() -> Iterator[RunningServer]:
    with running_server(decoder_timeout_s=1.0) as running:
        yield running


@pytest.fixture
def own_stub(own_server: RunningServer) -> Iterator[Stub]:
    with grpc.insecure_channel(own_server.address) as channel:
        yield Stub(channel)


def list_busy_decoders(running: RunningServer) -> list[int]:
    """Return the ids of the processes that decode a stream of this server."""
    decoders = running.server._decoder_pool
    return [process.pid for process in decoders._running] if decoders is not None else []


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class HalfSentClip:
    """Request iterator of the demo clip that sends the second half after ``resume``."""

    def __init__(self, messages: Messages) -> None:
        data = DEMO.read_bytes()
        self._first, self._second = data[: len(data) // 2], data[len(data) // 2 :]
        self._messages, self._resumed = messages, threading.Event()

    def __iter__(self) -> Iterator[lip_reading_pb2.StreamingRecognizeRequest]:
        yield from self._messages(self._first)
        self._resumed.wait(30)
        yield lip_reading_pb2.StreamingRecognizeRequest(media=self._second)

    def resume(self) -> None:
        self._resumed.set()


def start_call(stub: Stub, media: HalfSentClip) -> tuple[grpc.Call, str]:
    """Start a call; return it once its media is being decoded, and its request id."""
    call = stub.StreamingRecognize(iter(media), timeout=60)
    started = next(call)
    for response in call:
        if response.WhichOneof("event") == "media_info":
            break
    return call, started.started.request_id


def wait_for_failure(call: grpc.Call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError):
        list(call)
    return call.code(), call.details()


def test_a_killed_decoder_fails_only_its_own_stream(
    own_server: RunningServer, own_stub: Stub, messages: Messages, caplog: pytest.LogCaptureFixture
) -> None:
    failing_clip, other_clip = HalfSentClip(messages), HalfSentClip(messages)
    failing, request_id = start_call(own_stub, failing_clip)
    (pid,) = list_busy_decoders(own_server)
    continuing, _ = start_call(own_stub, other_clip)
    os.kill(pid, signal.SIGKILL)
    failing_clip.resume()
    code, text = wait_for_failure(failing)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "the decoder failed on this file (signal SIGKILL)" in text
    assert any(
        f"request {request_id}: decoder process {pid} was killed by SIGKILL" in line.getMessage()
        for line in caplog.records
    )
    other_clip.resume()
    rest = list(continuing)
    assert rest[-1].WhichOneof("event") == "finished"
    assert sum(response.WhichOneof("event") == "segment" for response in rest) >= 2
    next_responses = list(own_stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=60))
    assert next_responses[-1].WhichOneof("event") == "finished"
    assert not is_alive(pid)
    assert list_busy_decoders(own_server) == []


def test_a_stalled_decoder_fails_its_stream_after_the_timeout(
    own_server: RunningServer, own_stub: Stub, messages: Messages
) -> None:
    media = HalfSentClip(messages)
    call, _ = start_call(own_stub, media)
    (pid,) = list_busy_decoders(own_server)
    os.kill(pid, signal.SIGSTOP)
    media.resume()
    start_s = time.monotonic()
    code, text = wait_for_failure(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "decoding stalled" in text
    assert time.monotonic() - start_s < 10
    assert not is_alive(pid)


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_an_abandoned_call_kills_its_decoder(messages: Messages, end: str) -> None:
    media = HalfSentClip(messages)
    # The decoder's own timeout is far longer than the call, so only the end of the call can kill it.
    with (
        running_server(decoder_timeout_s=300.0) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        call = Stub(channel).StreamingRecognize(iter(media), timeout=60 if end == "cancelled" else 10)
        # The decoder has sent its first result: it is past the start of its job, which has a separate timeout.
        while not next(call).HasField("media_info"):
            pass
        pids = list_busy_decoders(running)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)  # a stopped process cannot exit by itself
        if end == "cancelled":
            call.cancel()
        with pytest.raises(grpc.RpcError):
            list(call)
        deadline = time.monotonic() + 30
        while any(map(is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(is_alive, pids))
        media.resume()


def test_a_decoder_failure_is_internal_without_details(
    messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server() as running, grpc.insecure_channel(running.address) as channel:
        pool = running.server._decoder_pool
        assert pool is not None
        monkeypatch.setattr(pool, "_command", (sys.executable, "-c", "raise SystemExit(3)"))
        stub = Stub(channel)
        # The first call uses the spare process, which was started before the patch.
        list(stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=60))
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=60))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details().startswith("internal error")


def test_faces_are_only_tracked_in_decoder_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_on_use(*_: object) -> None:
        raise AssertionError("the server process detects faces")

    monkeypatch.setattr(media_pipeline, "FaceDetector", fail_on_use)
    monkeypatch.setattr(server_module, "FaceDetector", fail_on_use)
    with running_server() as running, Client(running.address) as client:
        assert {segment.speaker for segment in client.transcribe(DEMO)} == {"face-1"}


def test_the_transcript_is_the_same_with_and_without_the_sandbox(server: RunningServer) -> None:
    with running_server(sandbox_decoding=False) as running:
        assert running.server._decoder_pool is None
        with Client(running.address) as unsandboxed, Client(server.address) as sandboxed:
            assert [segment.text for segment in unsandboxed.transcribe(DEMO)] == [
                segment.text for segment in sandboxed.transcribe(DEMO)
            ]


def test_the_server_keeps_one_spare_decoder_and_stops_it_at_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO), running_server() as running:
        pool = running.server._decoder_pool
        assert pool is not None
        deadline = time.monotonic() + 5
        while len(pool._ready) != 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        (spare,) = pool._ready
        pid = spare.pid  # type: ignore[union-attr]
        assert is_alive(pid)
    assert "media is decoded in sandboxed subprocesses" in caplog.text
    assert not is_alive(pid)


def test_a_server_without_working_decoders_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(load=False) as running:
        monkeypatch.setattr(
            running.server._decoder_pool, "_command", (sys.executable, "-c", "raise SystemExit(3)")
        )
        with pytest.raises(PreconditionError, match="set sandbox_decoding to false"):
            running.call(running.server.load())


def test_sandboxing_can_be_disabled_on_the_command_line() -> None:
    assert _create_parser().parse_args(["--no-sandbox-decoding"]).sandbox_decoding is False
    assert _create_parser().parse_args(["--sandbox-decoding"]).sandbox_decoding is True
    assert _create_parser().parse_args([]).sandbox_decoding is None


@pytest.mark.parametrize("sandbox", [True, False])
def test_the_face_mesh_reads_the_same_words(server: RunningServer, sandbox: bool) -> None:
    with (
        running_server(landmark_model="mediapipe", sandbox_decoding=sandbox) as running,
        Client(running.address) as by_mesh,
        Client(server.address) as by_dlib,
    ):
        assert [segment.text for segment in by_mesh.transcribe(DEMO, modality="video")] == [
            segment.text for segment in by_dlib.transcribe(DEMO, modality="video")
        ]
