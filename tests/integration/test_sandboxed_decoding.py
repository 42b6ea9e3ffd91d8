"""A real server whose decoder processes are killed, stopped and abandoned: only their own streams fail."""

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


def at_work(running: RunningServer) -> list[int]:
    """The processes that decode a stream of this server."""
    decoders = running.server._decoder_pool
    return [process.pid for process in decoders._running] if decoders is not None else []


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class HalfSent:
    """A stream whose second half is sent after ``resume``."""

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


def begun(stub: Stub, media: HalfSent) -> tuple[grpc.Call, str]:
    """Start a call; return it once its media is being decoded, and its request id."""
    call = stub.StreamingRecognize(iter(media), timeout=60)
    started = next(call)
    for response in call:
        if response.WhichOneof("event") == "media_info":
            break
    return call, started.started.request_id


def how_it_ended(call: grpc.Call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError):
        list(call)
    return call.code(), call.details()


def test_a_killed_decoder_fails_only_its_own_stream(
    own_server: RunningServer, own_stub: Stub, messages: Messages, caplog: pytest.LogCaptureFixture
) -> None:
    victim, other = HalfSent(messages), HalfSent(messages)
    failing, request_id = begun(own_stub, victim)
    (pid,) = at_work(own_server)
    going_on, _ = begun(own_stub, other)
    os.kill(pid, signal.SIGKILL)
    victim.resume()
    code, text = how_it_ended(failing)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "the decoder failed on this file (signal SIGKILL)" in text
    assert any(
        f"request {request_id}: decoder process {pid} was killed by SIGKILL" in line.getMessage()
        for line in caplog.records
    )
    other.resume()
    rest = list(going_on)
    assert rest[-1].WhichOneof("event") == "finished"
    assert sum(response.WhichOneof("event") == "segment" for response in rest) >= 2
    again = list(own_stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=60))
    assert again[-1].WhichOneof("event") == "finished"
    assert not is_alive(pid)
    assert at_work(own_server) == []


def test_a_stalled_decoder_ends_its_stream_in_time(
    own_server: RunningServer, own_stub: Stub, messages: Messages
) -> None:
    media = HalfSent(messages)
    call, _ = begun(own_stub, media)
    (pid,) = at_work(own_server)
    os.kill(pid, signal.SIGSTOP)
    media.resume()
    begun_at = time.monotonic()
    code, text = how_it_ended(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "decoding stalled" in text
    assert time.monotonic() - begun_at < 10
    assert not is_alive(pid)


@pytest.mark.parametrize("way", ["cancelled", "expired"])
def test_an_abandoned_call_ends_its_decoder(messages: Messages, way: str) -> None:
    media = HalfSent(messages)
    # The decoder's own timeout is far longer than the call, so only the end of the call can kill it.
    with (
        running_server(decoder_timeout_s=300.0) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        call = Stub(channel).StreamingRecognize(iter(media), timeout=60 if way == "cancelled" else 10)
        # The decoder has sent its first result: it is past the start of its job, which has a separate timeout.
        while not next(call).HasField("media_info"):
            pass
        pids = at_work(running)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)  # it cannot exit by itself
        if way == "cancelled":
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
        list(stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=60))  # by the one that waited
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=60))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details().startswith("internal error")


def test_faces_are_tracked_only_in_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_here(*_: object) -> None:
        raise AssertionError("the server itself looks for faces")

    monkeypatch.setattr(media_pipeline, "FaceDetector", not_here)
    monkeypatch.setattr(server_module, "FaceDetector", not_here)
    with running_server() as running, Client(running.address) as client:
        assert {segment.speaker for segment in client.transcribe(DEMO)} == {"face-1"}


def test_the_same_words_are_recognized_with_and_without_the_sandbox(server: RunningServer) -> None:
    with running_server(sandbox_decoding=False) as running:
        assert running.server._decoder_pool is None
        with Client(running.address) as within, Client(server.address) as apart:
            assert [segment.text for segment in within.transcribe(DEMO)] == [
                segment.text for segment in apart.transcribe(DEMO)
            ]


def test_the_server_keeps_one_spare_process_and_leaves_none(caplog: pytest.LogCaptureFixture) -> None:
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


def test_isolation_can_be_turned_off_on_the_command_line() -> None:
    assert _create_parser().parse_args(["--no-sandbox-decoding"]).sandbox_decoding is False
    assert _create_parser().parse_args(["--sandbox-decoding"]).sandbox_decoding is True
    assert _create_parser().parse_args([]).sandbox_decoding is None
