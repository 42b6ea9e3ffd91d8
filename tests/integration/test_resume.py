"""Stream resumption: transcripts are unchanged after servers or connections fail in mid-stream."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

import gorggle
from gorggle import AsyncClient, Client, Interrupted, Progress, Segment, Transcript
from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc
from tests.integration.conftest import LONG_DEMO, RunningServer, running_server
from tests.integration.crop_stream import create_chunks
from tests.integration.proxy import proxy_to

CHUNK = 65_536


def transcribe(
    targets: list[str], source: Any, *, is_async: bool, after_each: Callable[[Any], None], **options: Any
) -> Transcript:
    """Transcribe with either client; ``after_each`` receives every segment and event."""
    settings = options.pop("settings", {})

    async def transcribe_async() -> Transcript:
        async with AsyncClient(targets, **settings) as client:
            stream = client.transcribe(source, on_event=after_each, **options)
            segments = []
            async for segment in stream:
                segments.append(segment)
                await asyncio.to_thread(after_each, segment)
            return stream._build_transcript(segments)

    if is_async:
        return asyncio.run(transcribe_async())
    with Client(targets, **settings) as client:
        stream = client.transcribe(source, on_event=after_each, **options)
        segments = []
        for segment in stream:
            segments.append(segment)
            after_each(segment)
        return stream._build_transcript(segments)


class FaultTrigger:
    """Callback that runs an action once, for the first item that meets a condition; records all items."""

    def __init__(self, action: Callable[[], None], condition: Callable[[Any], bool]) -> None:
        self.items: list[Any] = []
        self._action, self._condition = action, condition
        self.has_fired = False

    def __call__(self, item: Any) -> None:
        self.items.append(item)
        if not self.has_fired and self._condition(item):
            self.has_fired = True
            self._action()

    @property
    def interruptions(self) -> list[Interrupted]:
        return [item for item in self.items if isinstance(item, Interrupted)]


def is_final_segment(item: Any) -> bool:
    return isinstance(item, Segment) and item.is_final


def assert_same_transcript(transcript: Transcript, expected: Transcript) -> None:
    """Assert equal words, timestamps and speakers, and equal confidences up to rounding.

    Confidences depend slightly on the composition of the batches.
    """

    def round_confidences(segment: Segment) -> Any:
        plain = dataclasses.asdict(segment)
        confidences = [round(plain.pop("confidence"), 3)]
        confidences += [round(word.pop("confidence"), 3) for word in plain["words"]]
        return plain, confidences

    assert [round_confidences(segment) for segment in transcript.segments] == [
        round_confidences(segment) for segment in expected.segments
    ]
    assert transcript.duration_s == expected.duration_s
    assert transcript.warnings == expected.warnings


def one_shot_source(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items; unlike a file, the source cannot be read again."""
    yield from items


async def one_shot_source_async(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class PacedSource:
    """One-shot source of media that is at most `ahead_s` ahead of the server's final results.

    The amount of unacknowledged data then does not depend on the speed of the machine. `report` is a callback of the
    transcription. Servers report their progress when they receive media, so final segments count as well.
    """

    def __init__(self, items: Sequence[Any], duration_s: float, ahead_s: float) -> None:
        self._items, self._item_s, self._ahead_s = items, duration_s / len(items), ahead_s
        self._processed_s = 0.0
        self._changed = threading.Condition()

    def report(self, item: Any) -> None:
        processed_s = (
            item.processed_s if isinstance(item, Progress) else item.end_s if is_final_segment(item) else 0.0
        )
        with self._changed:
            self._processed_s = max(self._processed_s, processed_s)
            self._changed.notify_all()

    def _wait_for_progress(self, number: int) -> None:
        limit_s = number * self._item_s - self._ahead_s
        with self._changed:
            assert self._changed.wait_for(lambda: self._processed_s >= limit_s, timeout=120)

    def __iter__(self) -> Iterator[Any]:
        for number, item in enumerate(self._items):
            self._wait_for_progress(number)
            yield item

    async def __aiter__(self) -> AsyncIterator[Any]:
        for number, item in enumerate(self._items):
            await asyncio.to_thread(self._wait_for_progress, number)
            yield item


def demo_chunks(size: int = CHUNK) -> list[bytes]:
    content = LONG_DEMO.read_bytes()
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.fixture(scope="module")
def expected(server: RunningServer) -> Transcript:
    with Client(server.address) as client:
        transcript = client.transcribe(LONG_DEMO).transcript()
    assert len(transcript.segments) >= 3
    return dataclasses.replace(transcript, file="")


@pytest.fixture(scope="module")
def expected_crop_transcript(server: RunningServer) -> Transcript:
    with Client(server.address) as client:
        transcript = client.transcribe(create_chunks(LONG_DEMO, 3)).transcript()
    assert len(transcript.segments) >= 6
    return transcript


# -------------------------------------------------------------------------------------------------- server subprocesses


class ServerSubprocess:
    """Server in a subprocess."""

    def __init__(self, port: int = 0, *arguments: str, module: Sequence[str] = ("gorggle_server",)) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                *module,
                "--listen",
                f"127.0.0.1:{port}",
                "--print-ready",
                # Like the servers of ``running_server``.
                "--audio-model",
                "none",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self._output = self.process.stdout

    def address(self) -> str:
        return str(json.loads(self._output.readline())["listening"])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()


@pytest.fixture
def start_server() -> Iterator[Callable[..., ServerSubprocess]]:
    with contextlib.ExitStack() as stack:

        def start(
            port: int = 0, *arguments: str, module: Sequence[str] = ("gorggle_server",)
        ) -> ServerSubprocess:
            running = ServerSubprocess(port, *arguments, module=module)
            stack.callback(running.close)
            return running

        yield start


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_a_stream_continues_on_another_server_after_a_kill(
    server: RunningServer, start_server: Callable[..., ServerSubprocess], expected: Transcript, is_async: bool
) -> None:
    failing_server = start_server()
    address = failing_server.address()
    trigger = FaultTrigger(failing_server.process.kill, is_final_segment)
    # The client reads a file again, and replays a one-shot source from its buffer.
    source = LONG_DEMO if not is_async else one_shot_source_async(demo_chunks())
    transcript = transcribe([address, server.address], source, is_async=is_async, after_each=trigger)
    assert trigger.has_fired
    assert trigger.interruptions
    assert_same_transcript(transcript, expected)


def test_a_stream_continues_on_the_same_server_after_a_restart(
    start_server: Callable[..., ServerSubprocess], expected: Transcript
) -> None:
    port = free_port()
    failing_server = start_server(port)
    address = failing_server.address()

    def restart() -> None:
        failing_server.process.kill()
        failing_server.process.wait()
        start_server(port)

    trigger = FaultTrigger(restart, is_final_segment)
    transcript = transcribe([address], one_shot_source(demo_chunks()), is_async=False, after_each=trigger)
    assert len(trigger.interruptions) >= 2, "the first attempts to reconnect fail while the server starts"
    assert_same_transcript(transcript, expected)


def test_a_server_with_a_failed_device_migrates_its_streams_and_exits(
    server: RunningServer, start_server: Callable[..., ServerSubprocess], expected: Transcript, tmp_path: Path
) -> None:
    fault = tmp_path / "fault"
    failing_server = start_server(module=("tests.integration.faulty_server", str(fault)))
    address = failing_server.address()
    trigger = FaultTrigger(
        lambda: fault.write_text("lost: CUDA error: unspecified launch failure"), is_final_segment
    )
    # The device fails before all media is sent.
    source = PacedSource(demo_chunks(16_384), expected.duration_s, ahead_s=8)

    def after_each(item: Any) -> None:
        trigger(item)
        source.report(item)

    transcript = transcribe([address, server.address], iter(source), is_async=False, after_each=after_each)
    assert trigger.has_fired
    assert any(isinstance(item, gorggle.ServerDraining | Interrupted) for item in trigger.items)
    assert_same_transcript(transcript, expected)
    # Its supervisor is expected to restart it.
    assert failing_server.process.wait(timeout=30) == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_sigterm_migrates_streams_to_another_server(
    server: RunningServer, start_server: Callable[..., ServerSubprocess], expected: Transcript, is_async: bool
) -> None:
    draining_server = start_server(0, "--shutdown-grace-period-s", "30")
    address = draining_server.address()
    trigger = FaultTrigger(lambda: draining_server.process.send_signal(signal.SIGTERM), is_final_segment)
    transcript = transcribe([address, server.address], LONG_DEMO, is_async=is_async, after_each=trigger)
    assert any(isinstance(item, gorggle.ServerDraining) for item in trigger.items)
    assert not trigger.interruptions, "the client migrated before the connection closed"
    assert draining_server.process.wait(20) == 0, "the server exits once its streams have migrated"
    assert_same_transcript(transcript, expected)


# --------------------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_the_client_reconnects_after_a_connection_loss(
    server: RunningServer, expected: Transcript, is_async: bool
) -> None:
    with proxy_to(server.address) as proxy:
        trigger = FaultTrigger(proxy.cut, is_final_segment)
        transcript = transcribe([proxy.address], LONG_DEMO, is_async=is_async, after_each=trigger)
        assert proxy.connections >= 2
    assert trigger.interruptions
    assert_same_transcript(transcript, expected)


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_crops_and_audio_continue_from_the_last_acknowledged_request(
    server: RunningServer, expected_crop_transcript: Transcript, is_async: bool
) -> None:
    def is_past_22_s(item: Any) -> bool:
        return isinstance(item, Progress) and item.processed_s > 22

    with proxy_to(server.address) as proxy:
        trigger = FaultTrigger(proxy.cut, is_past_22_s)
        # A replay buffer of 4 MiB holds 16 s of crops and audio.
        source = PacedSource(create_chunks(LONG_DEMO, 3), expected_crop_transcript.duration_s, ahead_s=10)

        def after_each(item: Any) -> None:
            trigger(item)
            source.report(item)

        options = {"replay_buffer_bytes": 4 * 2**20}
        transcript = transcribe(
            [proxy.address],
            aiter(source) if is_async else iter(source),
            is_async=is_async,
            after_each=after_each,
            **options,
        )
    assert trigger.interruptions
    assert_same_transcript(transcript, expected_crop_transcript)


def test_repeated_disconnections_do_not_change_the_transcript(
    server: RunningServer, expected_crop_transcript: Transcript
) -> None:
    with proxy_to(server.address) as proxy:
        cuts: list[float] = []

        def after_each(item: Any) -> None:
            source.report(item)
            if is_final_segment(item) and item.end_s > (cuts[-1] if cuts else 0.0) + 5.3:
                cuts.append(item.end_s)
                proxy.cut()

        source = PacedSource(create_chunks(LONG_DEMO, 3), expected_crop_transcript.duration_s, ahead_s=10)
        transcript = transcribe([proxy.address], iter(source), is_async=False, after_each=after_each)
    assert len(cuts) >= 4
    assert_same_transcript(transcript, expected_crop_transcript)


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_a_silent_connection_is_replaced(server: RunningServer, expected: Transcript, is_async: bool) -> None:
    """The proxy stops forwarding without closing the connection, like a firewall that drops packets."""
    with proxy_to(server.address) as proxy, proxy_to(server.address) as other:
        trigger = FaultTrigger(proxy.freeze, is_final_segment)
        start_s = time.monotonic()
        transcript = transcribe(
            [proxy.address, other.address],
            LONG_DEMO,
            is_async=is_async,
            after_each=trigger,
            settings={"heartbeat_interval_s": 1.0},
        )
        assert time.monotonic() - start_s < 60
    assert "stopped responding" in trigger.interruptions[0].reason
    assert_same_transcript(transcript, expected)


def test_data_beyond_the_replay_buffer_is_reported_as_lost(server: RunningServer) -> None:
    with proxy_to(server.address) as proxy:
        trigger = FaultTrigger(proxy.cut, is_final_segment)
        with pytest.raises(
            gorggle.DataLossError,
            match="must be sent again but were dropped: use replay_buffer_bytes above 100000",
        ):
            transcribe(
                [proxy.address],
                one_shot_source(demo_chunks()),
                is_async=False,
                after_each=trigger,
                replay_buffer_bytes=100_000,
            )
    assert trigger.has_fired


def test_a_changed_file_is_not_resumed(server: RunningServer, tmp_path: Any) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(LONG_DEMO.read_bytes())
    with proxy_to(server.address) as proxy:

        def replace_and_cut() -> None:
            clip.write_bytes(LONG_DEMO.read_bytes()[:-1])
            proxy.cut()

        trigger = FaultTrigger(replace_and_cut, is_final_segment)
        with pytest.raises(gorggle.DataLossError, match="has changed"):
            transcribe([proxy.address], clip, is_async=False, after_each=trigger)


def test_resume_can_be_disabled(server: RunningServer) -> None:
    with proxy_to(server.address) as proxy:
        trigger = FaultTrigger(proxy.cut, is_final_segment)
        with pytest.raises(gorggle.UnavailableError):
            transcribe(
                [proxy.address],
                LONG_DEMO,
                is_async=False,
                after_each=trigger,
                settings={"resume_timeout_s": 0},
            )


def test_resume_attempts_end_after_the_resume_timeout(server: RunningServer) -> None:
    with proxy_to(server.address) as proxy:
        trigger = FaultTrigger(proxy.close, is_final_segment)
        start_s = time.monotonic()
        with pytest.raises(gorggle.UnavailableError, match=proxy.address):
            transcribe(
                [proxy.address],
                LONG_DEMO,
                is_async=False,
                after_each=trigger,
                settings={"resume_timeout_s": 2},
            )
        assert time.monotonic() - start_s < 60
    assert 2 <= len(trigger.interruptions) < 20


# ---------------------------------------------------------------------------------------------------------- the gRPC API


Request = lip_reading_pb2.StreamingRecognizeRequest


def build_requests(first: int, data: list[bytes], config: config_pb2.StreamingConfig) -> Iterator[Request]:
    yield Request(config=config)
    for number, chunk in enumerate(data, first):
        yield Request(media=chunk, sequence=number)


def test_resuming_a_session_aborts_the_older_call(stub, server: RunningServer) -> None:
    config = config_pb2.StreamingConfig()
    released = threading.Event()

    def send_and_wait() -> Iterator[Request]:
        yield from build_requests(1, demo_chunks()[:2], config)
        released.wait(30)

    first = stub.StreamingRecognize(send_and_wait(), timeout=60)
    session_id = next(first).started.session_id
    config.resume.session_id = session_id
    second = stub.StreamingRecognize(build_requests(1, demo_chunks(), config), timeout=60)
    assert next(second).started.session_id == session_id
    with pytest.raises(grpc.RpcError) as caught:
        list(first)
    released.set()
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert [response.WhichOneof("event") for response in second][-1] == "finished"


def test_resuming_a_session_aborts_an_older_call_without_media(stub) -> None:
    """Regression test: gRPC sends no status for a call whose task is cancelled, so the client waited for its deadline."""
    config = config_pb2.StreamingConfig()
    released = threading.Event()

    def send_only_config() -> Iterator[Request]:
        yield Request(config=config)
        released.wait(60)

    first = stub.StreamingRecognize(send_only_config(), timeout=60)
    config.resume.session_id = next(first).started.session_id
    second = stub.StreamingRecognize(build_requests(1, demo_chunks(), config), timeout=60)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            list(first)
    finally:
        released.set()
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert [response.WhichOneof("event") for response in second][-1] == "finished"


def test_a_full_server_resumes_a_session_with_a_stale_connection() -> None:
    released = threading.Event()

    def send_and_wait() -> Iterator[Request]:
        yield from build_requests(1, demo_chunks()[:2], config_pb2.StreamingConfig())
        released.wait(30)

    with (
        running_server(max_streams=1) as running,
        proxy_to(running.address) as proxy,
        grpc.insecure_channel(proxy.address) as lost,
        grpc.insecure_channel(running.address) as channel,
    ):
        call = lip_reading_pb2_grpc.LipReadingStub(lost).StreamingRecognize(send_and_wait(), timeout=60)
        session_id = next(call).started.session_id
        proxy.freeze()
        config = config_pb2.StreamingConfig()
        config.resume.session_id = session_id
        resumed = lip_reading_pb2_grpc.LipReadingStub(channel).StreamingRecognize(
            build_requests(1, demo_chunks(), config),
            timeout=60,
            metadata=(("gorggle-session-id", session_id),),
        )
        assert [response.WhichOneof("event") for response in resumed][-1] == "finished"
        released.set()


def test_duplicate_requests_are_ignored_and_gaps_are_data_loss(stub, expected: Transcript) -> None:
    data = demo_chunks()

    def send_duplicates() -> Iterator[Request]:
        yield Request(config=config_pb2.StreamingConfig())
        for number, chunk in enumerate(data, 1):
            yield Request(media=chunk, sequence=number)
            yield Request(media=chunk, sequence=max(1, number - 1))

    texts = [
        response.segment.text
        for response in stub.StreamingRecognize(send_duplicates(), timeout=60)
        if response.HasField("segment")
    ]
    assert sorted(texts) == sorted(segment.text for segment in expected.segments)

    def send_with_gap() -> Iterator[Request]:
        yield Request(config=config_pb2.StreamingConfig())
        yield Request(media=data[0], sequence=1)
        yield Request(media=data[2], sequence=3)

    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(send_with_gap(), timeout=60))
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert "expected sequence 2, got 3" in caught.value.details()


@pytest.mark.parametrize(
    ("resume", "words"),
    [
        (config_pb2.ResumeConfig(), "session_id is missing"),
        (config_pb2.ResumeConfig(session_id="x" * 32), "session_id is missing"),
        (config_pb2.ResumeConfig(session_id="a" * 32, resume_token=b"{}"), "cannot be parsed"),
        (config_pb2.ResumeConfig(session_id="a" * 32, resume_token=b"[" * 30_000), "cannot be parsed"),
        (config_pb2.ResumeConfig(session_id="a" * 32, resume_token=b"x" * 70_000), "70000 bytes"),
        (config_pb2.ResumeConfig(session_id="a" * 32, resume_token=b'{"version":99}'), "another version"),
    ],
)
def test_an_invalid_resume_config_is_refused(stub, resume: config_pb2.ResumeConfig, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(
            stub.StreamingRecognize(
                build_requests(1, [b"x"], config_pb2.StreamingConfig(resume=resume)), timeout=30
            )
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


def test_the_acknowledgement_is_monotonic_and_never_exceeds_final_results(stub) -> None:
    responses = list(
        stub.StreamingRecognize(build_requests(1, demo_chunks(), config_pb2.StreamingConfig()), timeout=60)
    )
    final_until = [response.final_end_offset.ToMilliseconds() for response in responses]
    assert final_until == sorted(final_until)
    assert final_until[-1] == responses[-1].finished.media_duration.ToMilliseconds()
    for number, until in enumerate(final_until):
        for later in responses[number + 1 :]:
            if later.HasField("segment"):
                assert later.segment.end_offset.ToMilliseconds() > until
