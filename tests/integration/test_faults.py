"""Fault injection into a server subprocess: the client's view, no leaks, and continued service."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2, status_pb2

from benchmarks.server_process import ServerProcess
from gorggle import Client, ServerError
from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, server_pb2
from tests.clips import transcode
from tests.integration.conftest import DEMO

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")

Request = lip_reading_pb2.StreamingRecognizeRequest
Response = lip_reading_pb2.StreamingRecognizeResponse
Stub = lip_reading_pb2_grpc.LipReadingStub
CODE = grpc.StatusCode
PLACES = 3
IDLE_TIMEOUT_S = 5.0


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test writes what the device shall fail with."""
    return tmp_path_factory.mktemp("faults") / "fault"


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first sentence of the demo clip."""
    return transcode(DEMO, tmp_path_factory.mktemp("clips") / "short.mp4", max_s=3)


@pytest.fixture(scope="module")
def process(fault: Path, short_clip: Path) -> Iterator[ServerProcess]:
    program = ("-m", "tests.integration.faulty_server", str(fault))
    options = (
        "--max-streams",
        str(PLACES),
        "--idle-timeout-s",
        str(IDLE_TIMEOUT_S),
        "--decoder-timeout-s",
        "2",
    )
    with ServerProcess(*options, program=program) as running:
        assert reads(running, short_clip)  # the first call loads what is loaded late
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left_and_the_next_call_works(
    process: ServerProcess, fault: Path, short_clip: Path
) -> Iterator[None]:
    before = process.usage()
    yield
    fault.unlink(missing_ok=True)
    process.wait_until_idle(20)
    assert reads(process, short_clip)
    until(lambda: process.metrics()["gorggle_queue_depth"] == 0)
    slack = {"threads": PLACES}  # a thread of each place may have been started first here
    deadline = time.monotonic() + 20
    while left := {
        kind: count
        for kind, count in process.usage().growth_since(before).items()
        if count > slack.get(kind, 0)
    }:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


@pytest.fixture
def stub(process: ServerProcess) -> Iterator[Stub]:
    with channel_to(process) as channel:
        yield Stub(channel)


def channel_to(process: ServerProcess, **options: int) -> grpc.Channel:
    named = [(f"grpc.{name}", value) for name, value in options.items()]
    return grpc.insecure_channel(process.address, [("grpc.use_local_subchannel_pool", 1), *named])


def reads(process: ServerProcess, clip: Path) -> bool:
    with Client(process.address) as client:
        return len(client.recognize(clip).segments) > 0


class Sender:
    """The requests of a stream, handed over one by one."""

    def __init__(self, config: config_pb2.StreamingConfig | None = None) -> None:
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._requests.put(Request(config=config or config_pb2.StreamingConfig()))

    def media(self, data: bytes) -> None:
        self._requests.put(Request(media=data))

    def end(self) -> None:
        self._requests.put(None)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.get, None)


def half_sent(stub: Stub, timeout_s: float = 60) -> tuple[grpc.Call, Sender]:
    """A call whose media is being decoded, and what its second half is to be sent with."""
    sender = Sender()
    data = DEMO.read_bytes()
    sender.media(data[: len(data) // 2])
    call = stub.StreamingRecognize(iter(sender), timeout=timeout_s)
    for response in call:
        if response.WhichOneof("event") == "media_info":
            return call, sender
    raise AssertionError("the media was not opened")


def second_half() -> bytes:
    data = DEMO.read_bytes()
    return data[len(data) // 2 :]


def end_of(call: grpc.Call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError):
        list(call)
    return call.code(), call.details()


def words_in(responses: list[Response]) -> list[str]:
    return [
        response.segment.text
        for response in responses
        if response.WhichOneof("event") == "segment" and response.segment.is_final
    ]


def until(condition: Callable[[], object], patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# ----------------------------------------------------------------------------------------------------------- decoders


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_dead_or_hanging_decoder_fails_only_its_own_stream(
    process: ServerProcess, stub: Stub, number: signal.Signals
) -> None:
    failing, media = half_sent(stub)
    (victim,) = at_work(process)
    other, others_media = half_sent(stub)
    os.kill(victim, number)
    media.media(second_half())
    media.end()
    code, text = end_of(failing)
    assert code is CODE.INVALID_ARGUMENT
    assert ("decoding stalled" if number is signal.SIGSTOP else number.name) in text
    others_media.media(second_half())
    others_media.end()
    rest = list(other)
    assert rest[-1].WhichOneof("event") == "finished"
    assert len(words_in(rest)) >= 2


def at_work(process: ServerProcess) -> list[int]:
    """The decoders that have a stream: they have shut themselves in, which the kernel tells of."""
    return [pid for pid in process.children if "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()]


# ------------------------------------------------------------------------------------------------------- slow clients


def test_a_client_that_does_not_read_is_disconnected_with_the_reason(process: ServerProcess) -> None:
    config = config_pb2.StreamingConfig(
        recognition=config_pb2.RecognitionConfig(enable_word_time_offsets=True, max_alternatives=3),
        enable_speech_activity_events=True,
    )
    sender = Sender(config)
    # A window of 1 kB stands for a client that has left megabytes unread.
    with channel_to(process, **{"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0}) as channel:
        call = Stub(channel).StreamingRecognize(iter(sender), timeout=60)
        sender.media(DEMO.read_bytes())
        sender.end()
        until(lambda: process.metrics()["gorggle_active_streams"] == 1)
        until(lambda: process.metrics()["gorggle_active_streams"] == 0)
        code, text = end_of(call)  # what came before is there, and then the end
    assert code is CODE.DEADLINE_EXCEEDED
    assert f"read for {IDLE_TIMEOUT_S:g} s" in text


def test_a_client_that_never_reads_leaves_no_task_behind(process: ServerProcess) -> None:
    tasks = process.usage().tasks
    sender = Sender(config_pb2.StreamingConfig(enable_speech_activity_events=True))
    with channel_to(process, **{"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0}) as channel:
        call = Stub(channel).StreamingRecognize(iter(sender), timeout=120)
        sender.media(DEMO.read_bytes())
        sender.end()
        until(lambda: process.metrics()["gorggle_active_streams"] == 1)
        until(lambda: process.metrics()["gorggle_active_streams"] == 0)
        until(lambda: process.usage().tasks <= tasks + 1)  # the connection's own
        call.cancel()


def test_a_client_that_reads_slowly_gets_every_word(process: ServerProcess, stub: Stub) -> None:
    def slowly(responses: Iterator[Response]) -> Iterator[Response]:
        for response in responses:
            time.sleep(0.1)
            yield response

    def read(call: Iterator[Response]) -> list[str]:
        return words_in(list(call))

    requests = [Request(config=config_pb2.StreamingConfig()), Request(media=DEMO.read_bytes())]
    with channel_to(process, **{"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0}) as channel:
        slow = read(slowly(Stub(channel).StreamingRecognize(iter(requests), timeout=120)))
    assert slow == read(stub.StreamingRecognize(iter(requests), timeout=120))
    assert len(slow) >= 3


def test_a_client_that_writes_slowly_gets_every_word(stub: Stub) -> None:
    data = DEMO.read_bytes()

    def slowly() -> Iterator[Request]:
        yield Request(config=config_pb2.StreamingConfig())
        for number in range(20):
            time.sleep(0.2)
            yield Request(media=data[len(data) * number // 20 : len(data) * (number + 1) // 20])

    at_once = [Request(config=config_pb2.StreamingConfig()), Request(media=data)]
    slow = words_in(list(stub.StreamingRecognize(slowly(), timeout=120)))
    assert slow == words_in(list(stub.StreamingRecognize(iter(at_once), timeout=120)))
    assert len(slow) >= 3


def test_a_client_that_sends_single_bytes_is_served_like_any_other(
    process: ServerProcess, stub: Stub
) -> None:
    data = DEMO.read_bytes()[:3000]
    requests = [Request(config=config_pb2.StreamingConfig())]
    requests += [Request(media=data[at : at + 1]) for at in range(len(data))]
    call = stub.StreamingRecognize(iter(requests), timeout=60)
    assert end_of(call)[0] is CODE.INVALID_ARGUMENT  # truncated in its index, as it is in one piece


@pytest.mark.parametrize("said", ["nothing", "the configuration", "some media"])
def test_an_idle_client_is_disconnected_in_time(stub: Stub, said: str) -> None:
    sender = Sender()
    if said == "nothing":
        sender._requests.get()
    elif said == "some media":
        sender.media(DEMO.read_bytes()[:30_000])
    begun = time.monotonic()
    call = stub.StreamingRecognize(iter(sender), timeout=60)
    code, text = end_of(call)
    assert code is CODE.DEADLINE_EXCEEDED
    assert f"no message for {IDLE_TIMEOUT_S:g} s" in text
    assert time.monotonic() - begun < IDLE_TIMEOUT_S + 5
    sender.end()


# -------------------------------------------------------------------------------------------------- load and deadlines


def test_a_full_server_refuses_at_once_and_serves_those_it_has(process: ServerProcess, stub: Stub) -> None:
    held = [Sender() for _ in range(PLACES)]
    calls = [stub.StreamingRecognize(iter(sender), timeout=60) for sender in held]
    for call in calls:
        assert next(call).WhichOneof("event") == "started"
    for _ in range(5):
        begun = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.StreamingRecognize(iter([Request(media=b"x")]), timeout=10))
        # The promise is 100 ms on a machine of one's own; other work shares this one.
        assert time.monotonic() - begun < 1
        assert caught.value.code() is CODE.RESOURCE_EXHAUSTED
        details = status_pb2.Status.FromString(
            dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        )
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in details.details)
        assert retry.retry_delay.ToMilliseconds() > 0
    for sender in held:
        sender.media(DEMO.read_bytes())
        sender.end()
    assert all(len(words_in(list(call))) >= 3 for call in calls)


def test_a_storm_of_cancelled_calls_leaves_the_server_as_it_was(process: ServerProcess) -> None:
    with channel_to(process) as channel:
        for number in range(60):
            sender = Sender()
            sender.media(DEMO.read_bytes()[:50_000])
            call = Stub(channel).StreamingRecognize(iter(sender), timeout=60)
            if number % 3:
                time.sleep(0.01 * (number % 7))
            call.cancel()
            sender.end()


def test_expired_deadlines_free_the_slot_and_the_device(
    process: ServerProcess, stub: Stub, fault: Path
) -> None:
    for deadline_s in (0.001, 0.05, 0.3, 1.0):
        sender = Sender()
        sender.media(DEMO.read_bytes())
        call = stub.StreamingRecognize(iter(sender), timeout=deadline_s)
        assert end_of(call)[0] is CODE.DEADLINE_EXCEEDED
        sender.end()
    fault.write_text("slow 1.5")  # the device is at work when the deadline passes
    sender = Sender()
    sender.media(DEMO.read_bytes())
    sender.end()
    call = stub.StreamingRecognize(iter(sender), timeout=3)
    assert end_of(call)[0] is CODE.DEADLINE_EXCEEDED


# ----------------------------------------------------------------------------------------------------------- the device


@pytest.mark.parametrize(
    "error",
    ["CUDA error: an illegal memory access was encountered", "CUDA error: unspecified launch failure"],
)
def test_a_device_call_that_fails_is_internal_and_says_no_more(
    process: ServerProcess, stub: Stub, fault: Path, error: str
) -> None:
    fault.write_text(error)
    requests = [Request(config=config_pb2.StreamingConfig()), Request(media=DEMO.read_bytes())]
    call = stub.StreamingRecognize(iter(requests), timeout=60)
    code, text = end_of(call)
    assert code is CODE.INTERNAL
    assert "CUDA" not in text
    assert text.split()[-1] in process.log  # the id that the caller quotes
    assert error in process.log
    with Client(process.address) as client, pytest.raises(ServerError):
        client.recognize(DEMO)
    # Calls that need no device are served all the while.
    assert stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10).version


# --------------------------------------------------------------------------------------------------------- certificates


def write_keys(authority: trustme.CA, folder: Path) -> None:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


def test_a_certificate_renewed_during_calls_cuts_none_of_them(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    write_keys(old, tmp_path)
    options = ("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))

    def secure(process: ServerProcess, authority: trustme.CA) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        return grpc.secure_channel(process.address, credentials, [("grpc.use_local_subchannel_pool", 1)])

    with ServerProcess(*options) as process, secure(process, old) as before:
        call, sender = half_sent(Stub(before))
        write_keys(new, tmp_path)
        with secure(process, new) as after:
            assert Stub(after).GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10).version
        sender.media(second_half())
        sender.end()
        rest = list(call)
        assert rest[-1].WhichOneof("event") == "finished"
        assert len(words_in(rest)) >= 2
        # The old connection stays open; a new connection has to trust the new certificate.
        assert Stub(before).GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10).version
        with secure(process, old) as strange, pytest.raises(grpc.RpcError) as caught:
            Stub(strange).GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=5)
        assert caught.value.code() is CODE.UNAVAILABLE
