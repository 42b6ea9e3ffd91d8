"""Servers and connections are lost in the middle of streams; the transcripts are those of streams that went well."""

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
from tests.integration.conftest import DEMO, RunningServer, running_server
from tests.integration.crop_stream import create_chunks
from tests.integration.proxy import proxy_to

CHUNK = 65_536


def read(
    targets: list[str], source: Any, *, is_async: bool, after_each: Callable[[Any], None], **options: Any
) -> Transcript:
    """A transcript by either client; ``after_each`` receives every segment and event."""
    settings = options.pop("settings", {})

    async def read_async() -> Transcript:
        async with AsyncClient(targets, **settings) as client:
            stream = client.transcribe(source, on_event=after_each, **options)
            segments = []
            async for segment in stream:
                segments.append(segment)
                await asyncio.to_thread(after_each, segment)
            return stream._build_transcript(segments)

    if is_async:
        return asyncio.run(read_async())
    with Client(targets, **settings) as client:
        stream = client.transcribe(source, on_event=after_each, **options)
        segments = []
        for segment in stream:
            segments.append(segment)
            after_each(segment)
        return stream._build_transcript(segments)


class Accident:
    """Runs an action once when a condition is met; records all items."""

    def __init__(self, happens: Callable[[], None], when: Callable[[Any], bool]) -> None:
        self.items: list[Any] = []
        self._happens, self._when = happens, when
        self.has_happened = False

    def __call__(self, item: Any) -> None:
        self.items.append(item)
        if not self.has_happened and self._when(item):
            self.has_happened = True
            self._happens()

    @property
    def interruptions(self) -> list[Interrupted]:
        return [item for item in self.items if isinstance(item, Interrupted)]


def a_final_segment(item: Any) -> bool:
    return isinstance(item, Segment) and item.is_final


def same(transcript: Transcript, expected: Transcript) -> None:
    """The same words at the same times by the same people; confidences up to how batches were composed."""

    def rounded(segment: Segment) -> Any:
        plain = dataclasses.asdict(segment)
        confidences = [round(plain.pop("confidence"), 3)]
        confidences += [round(word.pop("confidence"), 3) for word in plain["words"]]
        return plain, confidences

    assert [rounded(segment) for segment in transcript.segments] == [
        rounded(segment) for segment in expected.segments
    ]
    assert transcript.duration_s == expected.duration_s
    assert transcript.warnings == expected.warnings


def live(items: Iterable[Any], pause_s: float = 0.0) -> Iterator[Any]:
    """A source that can be read once."""
    for item in items:
        time.sleep(pause_s)
        yield item


async def live_async(items: Iterable[Any], pause_s: float = 0.0) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(pause_s)
        yield item


def chunks(size: int = CHUNK) -> list[bytes]:
    content = DEMO.read_bytes()
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.fixture(scope="module")
def expected(server: RunningServer) -> Transcript:
    with Client(server.address) as client:
        transcript = client.transcribe(DEMO).transcript()
    assert len(transcript.segments) >= 3
    return dataclasses.replace(transcript, file="")


@pytest.fixture(scope="module")
def expected_of_pieces(server: RunningServer) -> Transcript:
    with Client(server.address) as client:
        transcript = client.transcribe(create_chunks(DEMO, 3)).transcript()
    assert len(transcript.segments) >= 6
    return transcript


# ------------------------------------------------------------------------------------------------------ real programs


class Program:
    """A server in a subprocess."""

    def __init__(self, port: int = 0, *arguments: str, module: Sequence[str] = ("gorggle_server",)) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                *module,
                "--listen",
                f"127.0.0.1:{port}",
                "--print-ready",
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
def program() -> Iterator[Callable[..., Program]]:
    with contextlib.ExitStack() as stack:

        def start(port: int = 0, *arguments: str, module: Sequence[str] = ("gorggle_server",)) -> Program:
            running = Program(port, *arguments, module=module)
            stack.callback(running.close)
            return running

        yield start


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_a_server_that_is_killed_is_replaced_by_another(
    server: RunningServer, program: Callable[..., Program], expected: Transcript, is_async: bool
) -> None:
    victim = program()
    address = victim.address()
    accident = Accident(victim.process.kill, a_final_segment)
    # A file is read again; what a pipe gave is kept.
    source = DEMO if not is_async else live_async(chunks())
    transcript = read([address, server.address], source, is_async=is_async, after_each=accident)
    assert accident.has_happened
    assert accident.interruptions
    same(transcript, expected)


def test_a_stream_continues_on_a_server_that_was_killed_and_restarted(
    program: Callable[..., Program], expected: Transcript
) -> None:
    port = free_port()
    victim = program(port)
    address = victim.address()

    def restart() -> None:
        victim.process.kill()
        victim.process.wait()
        program(port)

    accident = Accident(restart, a_final_segment)
    transcript = read([address], live(chunks()), is_async=False, after_each=accident)
    assert len(accident.interruptions) >= 2, "it takes a while to start"
    same(transcript, expected)


def test_a_server_that_loses_its_device_hands_its_streams_over_and_ends(
    server: RunningServer, program: Callable[..., Program], expected: Transcript, tmp_path: Path
) -> None:
    fault = tmp_path / "fault"
    victim = program(module=("tests.integration.faulty_server", str(fault)))
    address = victim.address()
    accident = Accident(
        lambda: fault.write_text("lost: CUDA error: unspecified launch failure"), a_final_segment
    )
    # Slowly: what is read before the device fails is read.
    source = live(chunks(16_384), pause_s=0.2)
    transcript = read([address, server.address], source, is_async=False, after_each=accident)
    assert accident.has_happened
    assert any(isinstance(item, gorggle.ServerDraining | Interrupted) for item in accident.items)
    same(transcript, expected)
    # Its supervisor is expected to restart it.
    assert victim.process.wait(timeout=30) == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_a_server_that_must_go_hands_its_streams_over(
    server: RunningServer, program: Callable[..., Program], expected: Transcript, is_async: bool
) -> None:
    leaving = program(0, "--shutdown-grace-period-s", "30")
    address = leaving.address()
    accident = Accident(lambda: leaving.process.send_signal(signal.SIGTERM), a_final_segment)
    transcript = read([address, server.address], DEMO, is_async=is_async, after_each=accident)
    assert any(isinstance(item, gorggle.ServerDraining) for item in accident.items)
    assert not accident.interruptions, "it moved before it was cut off"
    assert leaving.process.wait(20) == 0, "nothing holds the server back any more"
    same(transcript, expected)


# --------------------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_a_connection_that_is_cut_is_made_again(
    server: RunningServer, expected: Transcript, is_async: bool
) -> None:
    with proxy_to(server.address) as proxy:
        accident = Accident(proxy.cut, a_final_segment)
        transcript = read([proxy.address], DEMO, is_async=is_async, after_each=accident)
        assert proxy.connections >= 2
    assert accident.interruptions
    same(transcript, expected)


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_crops_and_audio_continue_from_the_last_acknowledged_request(
    server: RunningServer, expected_of_pieces: Transcript, is_async: bool
) -> None:
    def late(item: Any) -> bool:
        return isinstance(item, Progress) and item.processed_s > 22

    with proxy_to(server.address) as proxy:
        accident = Accident(proxy.cut, late)
        # The pace keeps what is sent close to what was acknowledged.
        source = live_async(create_chunks(DEMO, 3), 0.01) if is_async else live(create_chunks(DEMO, 3), 0.01)
        options = {"replay_buffer_bytes": 4 * 2**20}
        transcript = read([proxy.address], source, is_async=is_async, after_each=accident, **options)
    assert accident.interruptions
    same(transcript, expected_of_pieces)


def test_repeated_disconnections_of_crops_and_audio_change_nothing(
    server: RunningServer, expected_of_pieces: Transcript
) -> None:
    with proxy_to(server.address) as proxy:
        cuts: list[float] = []

        def after_each(item: Any) -> None:
            received_s = item.received_s if isinstance(item, Progress) else 0.0
            if received_s > (cuts[-1] if cuts else 0.0) + 5.3:
                cuts.append(received_s)
                proxy.cut()

        source = live(create_chunks(DEMO, 3), 0.005)
        transcript = read([proxy.address], source, is_async=False, after_each=after_each)
    assert len(cuts) >= 4
    same(transcript, expected_of_pieces)


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_a_silent_connection_is_replaced(server: RunningServer, expected: Transcript, is_async: bool) -> None:
    """As behind a firewall that drops what it has forgotten: no reset comes, no end, nothing."""
    with proxy_to(server.address) as proxy, proxy_to(server.address) as other:
        accident = Accident(proxy.freeze, a_final_segment)
        begun = time.monotonic()
        transcript = read(
            [proxy.address, other.address],
            DEMO,
            is_async=is_async,
            after_each=accident,
            settings={"heartbeat_interval_s": 1.0},
        )
        assert time.monotonic() - begun < 60
    assert "stopped responding" in accident.interruptions[0].reason
    same(transcript, expected)


def test_data_beyond_the_replay_buffer_is_reported_as_lost(server: RunningServer) -> None:
    with proxy_to(server.address) as proxy:
        accident = Accident(proxy.cut, a_final_segment)
        with pytest.raises(
            gorggle.DataLossError,
            match="must be sent again but were dropped: use replay_buffer_bytes above 100000",
        ):
            read(
                [proxy.address],
                live(chunks()),
                is_async=False,
                after_each=accident,
                replay_buffer_bytes=100_000,
            )
    assert accident.has_happened


def test_a_changed_file_is_not_resumed(server: RunningServer, tmp_path: Any) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(DEMO.read_bytes())
    with proxy_to(server.address) as proxy:

        def replace_and_cut() -> None:
            clip.write_bytes(DEMO.read_bytes()[:-1])
            proxy.cut()

        accident = Accident(replace_and_cut, a_final_segment)
        with pytest.raises(gorggle.DataLossError, match="has changed"):
            read([proxy.address], clip, is_async=False, after_each=accident)


def test_a_client_that_is_not_to_resume_hears_of_the_end(server: RunningServer) -> None:
    with proxy_to(server.address) as proxy:
        accident = Accident(proxy.cut, a_final_segment)
        with pytest.raises(gorggle.UnavailableError):
            read(
                [proxy.address],
                DEMO,
                is_async=False,
                after_each=accident,
                settings={"resume_timeout_s": 0},
            )


def test_trying_to_resume_has_an_end(server: RunningServer) -> None:
    with proxy_to(server.address) as proxy:
        accident = Accident(proxy.close, a_final_segment)
        begun = time.monotonic()
        with pytest.raises(gorggle.UnavailableError, match=proxy.address):
            read([proxy.address], DEMO, is_async=False, after_each=accident, settings={"resume_timeout_s": 2})
        assert time.monotonic() - begun < 60
    assert 2 <= len(accident.interruptions) < 20


# ------------------------------------------------------------------------------------------------------- the API itself


Request = lip_reading_pb2.StreamingRecognizeRequest


def numbered(first: int, data: list[bytes], config: config_pb2.StreamingConfig) -> Iterator[Request]:
    yield Request(config=config)
    for number, chunk in enumerate(data, first):
        yield Request(media=chunk, sequence=number)


def test_a_session_that_is_carried_on_elsewhere_ends_here(stub, server: RunningServer) -> None:
    config = config_pb2.StreamingConfig()
    held = threading.Event()

    def holding() -> Iterator[Request]:
        yield from numbered(1, chunks()[:2], config)
        held.wait(30)

    first = stub.StreamingRecognize(holding(), timeout=60)
    session_id = next(first).started.session_id
    config.resume.session_id = session_id
    second = stub.StreamingRecognize(numbered(1, chunks(), config), timeout=60)
    assert next(second).started.session_id == session_id
    with pytest.raises(grpc.RpcError) as caught:
        list(first)
    held.set()
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert [response.WhichOneof("event") for response in second][-1] == "finished"


def test_a_session_that_is_carried_on_before_its_media_began_ends_here(stub) -> None:
    """gRPC sends no status for a call whose task is cancelled: the client would wait until its deadline."""
    config = config_pb2.StreamingConfig()
    held = threading.Event()

    def send_only_config() -> Iterator[Request]:
        yield Request(config=config)
        held.wait(60)

    first = stub.StreamingRecognize(send_only_config(), timeout=60)
    config.resume.session_id = next(first).started.session_id
    second = stub.StreamingRecognize(numbered(1, chunks(), config), timeout=60)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            list(first)
    finally:
        held.set()
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert [response.WhichOneof("event") for response in second][-1] == "finished"


def test_a_full_server_resumes_a_session_whose_old_connection_is_still_open() -> None:
    held = threading.Event()

    def holding() -> Iterator[Request]:
        yield from numbered(1, chunks()[:2], config_pb2.StreamingConfig())
        held.wait(30)

    with (
        running_server(max_streams=1) as running,
        proxy_to(running.address) as proxy,
        grpc.insecure_channel(proxy.address) as lost,
        grpc.insecure_channel(running.address) as channel,
    ):
        call = lip_reading_pb2_grpc.LipReadingStub(lost).StreamingRecognize(holding(), timeout=60)
        session_id = next(call).started.session_id
        proxy.freeze()
        config = config_pb2.StreamingConfig()
        config.resume.session_id = session_id
        again = lip_reading_pb2_grpc.LipReadingStub(channel).StreamingRecognize(
            numbered(1, chunks(), config), timeout=60, metadata=(("gorggle-session-id", session_id),)
        )
        assert [response.WhichOneof("event") for response in again][-1] == "finished"
        held.set()


def test_a_duplicate_request_is_ignored_and_a_missing_one_is_reported(stub, expected: Transcript) -> None:
    data = chunks()

    def twice() -> Iterator[Request]:
        yield Request(config=config_pb2.StreamingConfig())
        for number, chunk in enumerate(data, 1):
            yield Request(media=chunk, sequence=number)
            yield Request(media=chunk, sequence=max(1, number - 1))

    found = [
        response.segment.text
        for response in stub.StreamingRecognize(twice(), timeout=60)
        if response.HasField("segment")
    ]
    assert sorted(found) == sorted(segment.text for segment in expected.segments)

    def gap() -> Iterator[Request]:
        yield Request(config=config_pb2.StreamingConfig())
        yield Request(media=data[0], sequence=1)
        yield Request(media=data[2], sequence=3)

    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(gap(), timeout=60))
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
def test_a_resumption_that_is_none_is_refused(stub, resume: config_pb2.ResumeConfig, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(
            stub.StreamingRecognize(
                numbered(1, [b"x"], config_pb2.StreamingConfig(resume=resume)), timeout=30
            )
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


def test_the_acknowledgement_is_monotonic_and_never_exceeds_final_results(stub) -> None:
    responses = list(stub.StreamingRecognize(numbered(1, chunks(), config_pb2.StreamingConfig()), timeout=60))
    final_until = [response.final_end_offset.ToMilliseconds() for response in responses]
    assert final_until == sorted(final_until)
    assert final_until[-1] == responses[-1].finished.media_duration.ToMilliseconds()
    for number, until in enumerate(final_until):
        for later in responses[number + 1 :]:
            if later.HasField("segment"):
                assert later.segment.end_offset.ToMilliseconds() > until
