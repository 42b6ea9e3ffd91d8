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
from tests.integration.conftest import LONG_DEMO

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")

Request = lip_reading_pb2.StreamingRecognizeRequest
Response = lip_reading_pb2.StreamingRecognizeResponse
Stub = lip_reading_pb2_grpc.LipReadingStub
CODE = grpc.StatusCode
MAX_STREAMS = 3
IDLE_TIMEOUT_S = 5.0


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file that injects a device fault; see ``faulty_server``."""
    return tmp_path_factory.mktemp("faults") / "fault"


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clip of the first three seconds of the demo clip."""
    return transcode(LONG_DEMO, tmp_path_factory.mktemp("clips") / "short.mp4", max_s=3)


@pytest.fixture(scope="module")
def process(fault: Path, short_clip: Path) -> Iterator[ServerProcess]:
    program = ("-m", "tests.integration.faulty_server", str(fault))
    options = (
        "--max-streams",
        str(MAX_STREAMS),
        "--idle-timeout-s",
        str(IDLE_TIMEOUT_S),
        "--decoder-timeout-s",
        "2",
    )
    with ServerProcess(*options, program=program) as running:
        assert can_transcribe(running, short_clip)  # the first call also loads the lazily loaded components
        yield running


@pytest.fixture(autouse=True)
def _assert_no_leaks_and_continued_service(
    process: ServerProcess, fault: Path, short_clip: Path
) -> Iterator[None]:
    before = process.usage()
    yield
    fault.unlink(missing_ok=True)
    process.wait_until_idle(20)
    assert can_transcribe(process, short_clip)
    wait_until(lambda: process.metrics()["gorggle_queue_depth"] == 0)
    slack = {"threads": MAX_STREAMS}  # each slot may start its thread during the test
    deadline = time.monotonic() + 20
    while leaked := {
        kind: count
        for kind, count in process.usage().growth_since(before).items()
        if count > slack.get(kind, 0)
    }:
        assert time.monotonic() < deadline, f"leaked resources: {leaked}"
        time.sleep(0.05)


@pytest.fixture
def stub(process: ServerProcess) -> Iterator[Stub]:
    with channel_to(process) as channel:
        yield Stub(channel)


def channel_to(process: ServerProcess, **options: int) -> grpc.Channel:
    channel_options = [(f"grpc.{name}", value) for name, value in options.items()]
    return grpc.insecure_channel(process.address, [("grpc.use_local_subchannel_pool", 1), *channel_options])


def can_transcribe(process: ServerProcess, clip: Path) -> bool:
    with Client(process.address) as client:
        return len(client.recognize(clip).segments) > 0


class Sender:
    """Request iterator of a stream; the test adds the requests one by one."""

    def __init__(self, config: config_pb2.StreamingConfig | None = None) -> None:
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._requests.put(Request(config=config or config_pb2.StreamingConfig()))

    def send_media(self, data: bytes) -> None:
        self._requests.put(Request(media=data))

    def close(self) -> None:
        self._requests.put(None)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.get, None)


def start_half_sent_call(stub: Stub, timeout_s: float = 60) -> tuple[grpc.Call, Sender]:
    """Start a call and send half of the clip; return the call, once the media is being decoded, and its sender."""
    sender = Sender()
    data = LONG_DEMO.read_bytes()
    sender.send_media(data[: len(data) // 2])
    call = stub.StreamingRecognize(iter(sender), timeout=timeout_s)
    for response in call:
        if response.WhichOneof("event") == "media_info":
            return call, sender
    raise AssertionError("the server sent no media info")


def second_half() -> bytes:
    data = LONG_DEMO.read_bytes()
    return data[len(data) // 2 :]


def wait_for_failure(call: grpc.Call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError):
        list(call)
    return call.code(), call.details()


def final_texts(responses: list[Response]) -> list[str]:
    return [
        response.segment.text
        for response in responses
        if response.WhichOneof("event") == "segment" and response.segment.is_final
    ]


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


# ----------------------------------------------------------------------------------------------------------- decoders


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_dead_or_hanging_decoder_fails_only_its_own_stream(
    process: ServerProcess, stub: Stub, number: signal.Signals
) -> None:
    failing, failing_sender = start_half_sent_call(stub)
    (failing_pid,) = list_busy_decoders(process)
    other, other_sender = start_half_sent_call(stub)
    os.kill(failing_pid, number)
    failing_sender.send_media(second_half())
    failing_sender.close()
    code, text = wait_for_failure(failing)
    assert code is CODE.INVALID_ARGUMENT
    assert ("decoding stalled" if number is signal.SIGSTOP else number.name) in text
    other_sender.send_media(second_half())
    other_sender.close()
    rest = list(other)
    assert rest[-1].WhichOneof("event") == "finished"
    assert len(final_texts(rest)) >= 2


def list_busy_decoders(process: ServerProcess) -> list[int]:
    """Return the decoders that have a stream: they have installed their seccomp filter."""
    return [pid for pid in process.children if "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()]


# ------------------------------------------------------------------------------------------------------- slow clients


def test_a_client_that_does_not_read_is_disconnected_with_the_reason(process: ServerProcess) -> None:
    config = config_pb2.StreamingConfig(
        recognition=config_pb2.RecognitionConfig(enable_word_time_offsets=True, max_alternatives=3),
        enable_speech_activity_events=True,
    )
    sender = Sender(config)
    # A flow-control window of 1 KiB fills at once; the default one would take megabytes of responses.
    with channel_to(process, **{"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0}) as channel:
        call = Stub(channel).StreamingRecognize(iter(sender), timeout=60)
        sender.send_media(LONG_DEMO.read_bytes())
        sender.close()
        wait_until(lambda: process.metrics()["gorggle_active_streams"] == 1)
        wait_until(lambda: process.metrics()["gorggle_active_streams"] == 0)
        code, text = wait_for_failure(call)  # the buffered responses, then the status
    assert code is CODE.DEADLINE_EXCEEDED
    assert f"read for {IDLE_TIMEOUT_S:g} s" in text


def test_a_client_that_never_reads_leaks_no_task(process: ServerProcess) -> None:
    tasks = process.usage().tasks
    sender = Sender(config_pb2.StreamingConfig(enable_speech_activity_events=True))
    with channel_to(process, **{"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0}) as channel:
        call = Stub(channel).StreamingRecognize(iter(sender), timeout=120)
        sender.send_media(LONG_DEMO.read_bytes())
        sender.close()
        wait_until(lambda: process.metrics()["gorggle_active_streams"] == 1)
        wait_until(lambda: process.metrics()["gorggle_active_streams"] == 0)
        wait_until(lambda: process.usage().tasks <= tasks + 1)  # one task belongs to the connection
        call.cancel()


def test_a_client_that_reads_slowly_gets_every_word(process: ServerProcess, stub: Stub) -> None:
    def read_slowly(responses: Iterator[Response]) -> Iterator[Response]:
        for response in responses:
            time.sleep(0.1)
            yield response

    def transcribe(call: Iterator[Response]) -> list[str]:
        return final_texts(list(call))

    requests = [Request(config=config_pb2.StreamingConfig()), Request(media=LONG_DEMO.read_bytes())]
    with channel_to(process, **{"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0}) as channel:
        slow = transcribe(read_slowly(Stub(channel).StreamingRecognize(iter(requests), timeout=120)))
    assert slow == transcribe(stub.StreamingRecognize(iter(requests), timeout=120))
    assert len(slow) >= 3


def test_a_client_that_writes_slowly_gets_every_word(stub: Stub) -> None:
    data = LONG_DEMO.read_bytes()

    def write_slowly() -> Iterator[Request]:
        yield Request(config=config_pb2.StreamingConfig())
        for number in range(20):
            time.sleep(0.2)
            yield Request(media=data[len(data) * number // 20 : len(data) * (number + 1) // 20])

    at_once = [Request(config=config_pb2.StreamingConfig()), Request(media=data)]
    slow = final_texts(list(stub.StreamingRecognize(write_slowly(), timeout=120)))
    assert slow == final_texts(list(stub.StreamingRecognize(iter(at_once), timeout=120)))
    assert len(slow) >= 3


def test_single_byte_messages_are_handled_like_one_chunk(process: ServerProcess, stub: Stub) -> None:
    data = LONG_DEMO.read_bytes()[:3000]
    requests = [Request(config=config_pb2.StreamingConfig())]
    requests += [Request(media=data[at : at + 1]) for at in range(len(data))]
    call = stub.StreamingRecognize(iter(requests), timeout=60)
    # The index is truncated: the file is refused as if sent in one chunk.
    assert wait_for_failure(call)[0] is CODE.INVALID_ARGUMENT


@pytest.mark.parametrize("sent", ["nothing", "the configuration", "some media"])
def test_an_idle_client_is_disconnected_after_the_timeout(stub: Stub, sent: str) -> None:
    sender = Sender()
    if sent == "nothing":
        sender._requests.get()
    elif sent == "some media":
        sender.send_media(LONG_DEMO.read_bytes()[:30_000])
    start_s = time.monotonic()
    call = stub.StreamingRecognize(iter(sender), timeout=60)
    code, text = wait_for_failure(call)
    assert code is CODE.DEADLINE_EXCEEDED
    assert f"no message for {IDLE_TIMEOUT_S:g} s" in text
    assert time.monotonic() - start_s < IDLE_TIMEOUT_S + 5
    sender.close()


# -------------------------------------------------------------------------------------------------- load and deadlines


def test_a_full_server_refuses_new_calls_at_once_and_serves_admitted_ones(
    process: ServerProcess, stub: Stub
) -> None:
    senders = [Sender() for _ in range(MAX_STREAMS)]
    calls = [stub.StreamingRecognize(iter(sender), timeout=60) for sender in senders]
    for call in calls:
        assert next(call).WhichOneof("event") == "started"
    for _ in range(5):
        start_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.StreamingRecognize(iter([Request(media=b"x")]), timeout=10))
        # 100 ms on an idle machine; the tests run beside other processes.
        assert time.monotonic() - start_s < 1
        assert caught.value.code() is CODE.RESOURCE_EXHAUSTED
        details = status_pb2.Status.FromString(
            dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        )
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in details.details)
        assert retry.retry_delay.ToMilliseconds() > 0
    for sender in senders:
        sender.send_media(LONG_DEMO.read_bytes())
        sender.close()
    assert all(len(final_texts(list(call))) >= 3 for call in calls)


def test_a_storm_of_cancelled_calls_leaks_nothing(process: ServerProcess) -> None:
    with channel_to(process) as channel:
        for number in range(60):
            sender = Sender()
            sender.send_media(LONG_DEMO.read_bytes()[:50_000])
            call = Stub(channel).StreamingRecognize(iter(sender), timeout=60)
            if number % 3:
                time.sleep(0.01 * (number % 7))
            call.cancel()
            sender.close()


def test_expired_deadlines_free_the_slot_and_the_device(
    process: ServerProcess, stub: Stub, fault: Path
) -> None:
    for deadline_s in (0.001, 0.05, 0.3, 1.0):
        sender = Sender()
        sender.send_media(LONG_DEMO.read_bytes())
        call = stub.StreamingRecognize(iter(sender), timeout=deadline_s)
        assert wait_for_failure(call)[0] is CODE.DEADLINE_EXCEEDED
        sender.close()
    fault.write_text("slow 1.5")  # the device call is still running when the deadline expires
    sender = Sender()
    sender.send_media(LONG_DEMO.read_bytes())
    sender.close()
    call = stub.StreamingRecognize(iter(sender), timeout=3)
    assert wait_for_failure(call)[0] is CODE.DEADLINE_EXCEEDED


# ----------------------------------------------------------------------------------------------------------- the device


def test_a_failed_device_call_is_an_internal_error_without_details(
    process: ServerProcess, stub: Stub, fault: Path
) -> None:
    error = "CUDA error: an illegal memory access was encountered"
    fault.write_text(error)
    requests = [Request(config=config_pb2.StreamingConfig()), Request(media=LONG_DEMO.read_bytes())]
    call = stub.StreamingRecognize(iter(requests), timeout=60)
    code, text = wait_for_failure(call)
    assert code is CODE.INTERNAL
    assert "CUDA" not in text
    assert text.split()[-1] in process.log  # the request id in the error message
    assert error in process.log
    with Client(process.address) as client, pytest.raises(ServerError):
        client.recognize(LONG_DEMO)
    # Calls that need no device are still served.
    assert stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10).version


# --------------------------------------------------------------------------------------------------------- certificates


def write_keys(authority: trustme.CA, folder: Path) -> None:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


def test_renewing_the_certificate_interrupts_no_call(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    write_keys(old, tmp_path)
    options = ("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))

    def secure_channel(process: ServerProcess, authority: trustme.CA) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        return grpc.secure_channel(process.address, credentials, [("grpc.use_local_subchannel_pool", 1)])

    with ServerProcess(*options) as process, secure_channel(process, old) as before:
        call, sender = start_half_sent_call(Stub(before))
        write_keys(new, tmp_path)
        with secure_channel(process, new) as after:
            assert Stub(after).GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10).version
        sender.send_media(second_half())
        sender.close()
        rest = list(call)
        assert rest[-1].WhichOneof("event") == "finished"
        assert len(final_texts(rest)) >= 2
        # The old connection stays open; a new connection has to trust the new certificate.
        assert Stub(before).GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10).version
        with secure_channel(process, old) as untrusting, pytest.raises(grpc.RpcError) as caught:
            Stub(untrusting).GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=5)
        assert caught.value.code() is CODE.UNAVAILABLE
