"""Failed and cancelled calls of both clients, and the release of their resources."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import gorggle
from gorggle import AsyncClient, Client
from tests.sdk import fake_service
from tests.sdk.conftest import AsyncAdapter, ClientAdapter, MakeServer, SyncAdapter
from tests.sdk.fake_service import FakeLipReading

CHUNK = b"x" * 65536


def endless() -> Iterator[bytes]:
    while True:
        yield CHUNK


async def endless_async() -> AsyncIterator[bytes]:
    while True:
        yield CHUNK


def retry_details(delay_s: float) -> bytes:
    """Status details in the format of grpcio-status, with another detail before the delay."""
    details = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(error_details_pb2.DebugInfo(detail="unrelated"))
    delay = duration_pb2.Duration()
    delay.FromMicroseconds(round(delay_s * 1e6))
    details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status: bytes = status_pb2.Status(code=8, message="full", details=details).SerializeToString()
    return status


# ---------------------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, gorggle.InvalidRequestError),
        (grpc.StatusCode.OUT_OF_RANGE, gorggle.InvalidRequestError),
        (grpc.StatusCode.FAILED_PRECONDITION, gorggle.PreconditionError),
        (grpc.StatusCode.NOT_FOUND, gorggle.NotFoundError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, gorggle.OverloadedError),
        (grpc.StatusCode.UNAVAILABLE, gorggle.UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, gorggle.DeadlineError),
        (grpc.StatusCode.ABORTED, gorggle.SupersededError),
        (grpc.StatusCode.DATA_LOSS, gorggle.DataLossError),
        (grpc.StatusCode.UNAUTHENTICATED, gorggle.AuthenticationError),
        (grpc.StatusCode.PERMISSION_DENIED, gorggle.AuthenticationError),
        (grpc.StatusCode.CANCELLED, gorggle.CallCancelledError),
        (grpc.StatusCode.INTERNAL, gorggle.ServerError),
        (grpc.StatusCode.UNKNOWN, gorggle.ServerError),
    ],
)
def test_each_status_maps_to_its_error(
    adapter: ClientAdapter,
    service: FakeLipReading,
    target: str,
    code: grpc.StatusCode,
    expected: type[Exception],
) -> None:
    service.script = fake_service.ending(code, "what was found, what to do")
    service.clip = lambda _request, context: context.abort(code, "what was found, what to do")
    with pytest.raises(gorggle.GorggleError, match="what was found, what to do") as stream_error:
        adapter.transcribe(target, b"media")
    with pytest.raises(gorggle.GorggleError, match="what was found, what to do") as clip_error:
        adapter.call(target, "recognize", b"media")
    for caught in (stream_error, clip_error):
        assert type(caught.value) is expected
        assert caught.value.code is code
    assert stream_error.value.request_id == "call-1"


def test_no_face_error_is_identified_by_its_reason(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    service.script = fake_service.ending(
        grpc.StatusCode.FAILED_PRECONDITION,
        "no face is seen",
        fake_service.error_trailer(grpc.StatusCode.FAILED_PRECONDITION, "no face is seen", reason="NO_FACE"),
        first=False,
    )
    with pytest.raises(gorggle.NoFaceError, match="no face is seen"):
        adapter.transcribe(target, b"media")


def test_a_reason_that_contradicts_the_status_is_ignored(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    service.script = fake_service.ending(
        grpc.StatusCode.INTERNAL,
        "oh",
        fake_service.error_trailer(grpc.StatusCode.INTERNAL, "oh", reason="NO_FACE"),
    )
    with pytest.raises(gorggle.ServerError):
        adapter.transcribe(target, b"media")


def test_an_overloaded_server_sends_a_retry_delay(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    service.script = fake_service.ending(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "full", ("grpc-status-details-bin", retry_details(2.5))
    )
    with pytest.raises(gorggle.OverloadedError, match="full") as caught:
        adapter.transcribe(target, b"media")
    assert caught.value.retry_after_s == 2.5


@pytest.mark.parametrize("details", [None, b"\xff\xff\xff", b"", b"\x1a\x02\x0a\x00"])
def test_an_overloaded_server_without_a_retry_delay_is_overloaded(
    adapter: ClientAdapter, service: FakeLipReading, target: str, details: bytes | None
) -> None:
    trailers = [] if details is None else [("grpc-status-details-bin", details)]
    service.script = fake_service.ending(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", *trailers)
    with pytest.raises(gorggle.OverloadedError, match="full") as caught:
        adapter.transcribe(target, b"media")
    assert caught.value.retry_after_s is None


def test_the_request_id_of_a_refused_call_is_in_its_error(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    def clip(request: Any, context: Any) -> None:
        code = grpc.StatusCode.INTERNAL
        trailer = fake_service.error_trailer(code, "internal error", reason="INTERNAL", request_id="call-9")
        context.set_trailing_metadata([trailer])
        context.abort(code, "internal error")

    service.clip = clip
    with pytest.raises(gorggle.ServerError) as caught:
        adapter.call(target, "recognize", b"media")
    assert caught.value.request_id == "call-9"


def test_a_message_above_the_size_limit_is_an_invalid_request(adapter: ClientAdapter, target: str) -> None:
    with pytest.raises(gorggle.InvalidRequestError, match=r"larger than max .*transcribe\(\)"):
        adapter.call(target, "recognize", bytes(5 * 2**20))


def test_a_stream_without_its_final_message_is_a_server_error(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        yield fake_service.segment()

    service.script = script
    with pytest.raises(gorggle.ServerError, match="before all media was processed") as caught:
        adapter.transcribe(target, b"media")
    assert caught.value.request_id == "call-1"


# ------------------------------------------------------------------------------------ errors while media is sent


@pytest.mark.parametrize("source", [endless, endless_async])
def test_the_servers_status_survives_failed_writes(service: FakeLipReading, target: str, source: Any) -> None:
    """grpc.aio reports "Internal error from Core" instead when a write fails as the call ends."""
    service.script = fake_service.ending(grpc.StatusCode.INVALID_ARGUMENT, "invalid video", first=False)
    errors: set[tuple[type[Exception], str, str]] = set()

    async def transcribe() -> None:
        async with AsyncClient(target) as client:
            for _ in range(60):
                with pytest.raises(gorggle.GorggleError) as caught:
                    await client.transcribe(source()).transcript()
                errors.add((type(caught.value), str(caught.value), caught.value.request_id))

    asyncio.run(transcribe())
    assert errors == {(gorggle.InvalidRequestError, "invalid video", "call-1")}


def test_the_servers_status_reaches_the_blocking_client_during_sending(
    service: FakeLipReading, target: str
) -> None:
    service.script = fake_service.ending(grpc.StatusCode.INVALID_ARGUMENT, "invalid video", first=False)
    with Client(target) as client:
        for _ in range(30):
            with pytest.raises(gorggle.InvalidRequestError, match="invalid video"):
                client.transcribe(endless()).transcript()


def test_no_response_is_lost_if_the_server_finishes_before_all_media_is_sent(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        for number in range(20):
            yield fake_service.segment(f"segment {number}")
        yield fake_service.finished()

    service.script = script
    for _ in range(20):
        segments = adapter.transcribe(target, itertools.repeat(CHUNK, 20))
        assert [segment.text for segment in segments] == [f"segment {number}" for number in range(20)]


def test_a_slow_server_applies_back_pressure_to_the_source(service: FakeLipReading, target: str) -> None:
    """The read-ahead is bounded by HTTP/2's flow control windows."""
    unblock = threading.Event()

    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        yield fake_service.segment("one")
        unblock.wait(10)
        context.abort(grpc.StatusCode.OUT_OF_RANGE, "too long")

    service.script = script

    async def transcribe() -> int:
        async with AsyncClient(target) as client, client.transcribe(endless()) as stream:
            await anext(stream)
            await asyncio.to_thread(_wait_for_media, stream)
            return stream.bytes_sent

    with Client(target) as client, client.transcribe(endless()) as stream:
        next(stream)
        _wait_for_media(stream)
        sent = [stream.bytes_sent, asyncio.run(transcribe())]
        unblock.set()
    assert all(0 < bytes_sent < 16 * 2**20 for bytes_sent in sent), sent


def _wait_for_media(stream: Any) -> None:
    """Wait until some media was sent, then until the read-ahead has settled (0.5 s)."""
    deadline = time.monotonic() + 5
    while not stream.bytes_sent and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)


def test_a_call_has_a_deadline(adapter: ClientAdapter, service: FakeLipReading, target: str) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        for _ in requests:
            pass

    service.script = script
    started_at = time.monotonic()
    with pytest.raises(gorggle.DeadlineError) as caught:
        adapter.transcribe(target, endless(), timeout_s=0.3)
    with pytest.raises(gorggle.DeadlineError):
        adapter.transcribe(target, endless(), settings={"timeout_s": 0.3})
    assert time.monotonic() - started_at < 5
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.ended.wait(5)


# ---------------------------------------------------------------------------------------------- early cancellation


def stream_until_cancelled(requests: Any, context: Any) -> Iterator[fake_service.Response]:
    yield fake_service.started()
    yield fake_service.segment("first")
    for _ in requests:
        pass


def test_closing_a_stream_ends_the_call(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled
    with Client(target) as client:
        with client.transcribe(endless()) as stream:
            next(stream)
            assert not service.ended.is_set()
        assert service.ended.wait(5)
        assert list(stream) == []


def test_closing_an_async_stream_ends_the_call_and_the_source(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled
    closed = threading.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            async for chunk in endless_async():
                yield chunk
        finally:
            closed.set()

    async def transcribe() -> None:
        async with AsyncClient(target) as client:
            async with client.transcribe(source()) as stream:
                await anext(stream)
            assert await asyncio.to_thread(service.ended.wait, 5)
            assert [segment async for segment in stream] == []

    asyncio.run(transcribe())
    assert closed.is_set()


def test_dropping_a_stream_ends_the_call(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled
    with Client(target) as client:
        for segment in client.transcribe(endless()):
            assert segment.text == "first"
            break
        gc.collect()
        assert service.ended.wait(5)


def test_dropping_an_async_stream_ends_the_call(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled

    async def transcribe() -> None:
        async with AsyncClient(target) as client:
            async for segment in client.transcribe(endless_async()):
                assert segment.text == "first"
                break
            gc.collect()
            assert await asyncio.to_thread(service.ended.wait, 5)

    asyncio.run(transcribe())


def test_a_stream_can_be_closed_from_another_thread(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled
    with Client(target) as client:
        stream = client.transcribe(endless())
        next(stream)
        threading.Timer(0.2, stream.close).start()
        with pytest.raises(gorggle.CallCancelledError):
            next(stream)
    assert service.ended.wait(5)


def test_closing_the_client_ends_its_calls(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled
    client = Client(target)
    stream = client.transcribe(endless())
    next(stream)
    threading.Timer(0.2, client.close).start()
    with pytest.raises(gorggle.CallCancelledError):
        next(stream)


def test_closing_the_async_client_ends_its_calls(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled
    unblock = threading.Event()
    service.clip = lambda *_: unblock.wait(10)

    async def transcribe() -> None:
        client = AsyncClient(target)
        stream = client.transcribe(endless_async())
        await anext(stream)
        waiting = [asyncio.ensure_future(anext(stream)), asyncio.ensure_future(client.recognize(b"media"))]
        await asyncio.sleep(0.2)
        await client.close()
        for task in waiting:
            with pytest.raises(gorggle.CallCancelledError):
                await task

    asyncio.run(transcribe())
    unblock.set()


def test_cancelling_a_task_cancels_its_call(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled

    async def transcribe() -> None:
        async with AsyncClient(target) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.transcribe(endless_async()).transcript()
            assert await asyncio.to_thread(service.ended.wait, 5)
            assert (await client.server_info()).version == "0.1.0", "the client can still be used"

    asyncio.run(transcribe())


def test_a_closed_client_refuses_calls(adapter: ClientAdapter, target: str) -> None:
    async def call_closed_client() -> None:
        client = AsyncClient(target)
        await client.server_info()
        await client.close()
        with pytest.raises(RuntimeError, match="closed"):
            await client.models()
        with pytest.raises(RuntimeError, match="closed"):
            await anext(client.transcribe(b"media"))

    if isinstance(adapter, AsyncAdapter):
        asyncio.run(call_closed_client())
        return
    client = Client(target)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.models()
    with pytest.raises(RuntimeError, match="closed"):
        next(client.transcribe(b"media"))


def test_an_async_client_is_bound_to_one_event_loop(target: str) -> None:
    client = AsyncClient(target)
    asyncio.run(_call_without_closing(client))
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(_call_without_closing(client))


async def _call_without_closing(client: AsyncClient) -> None:
    await client.server_info()


# --------------------------------------------------------------------------------------------------- source errors


class CameraError(Exception):
    """An error raised by the caller's source or callback."""


def test_a_failing_source_raises_its_own_error_and_cancels_the_call(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    service.script = stream_until_cancelled

    def failing_source() -> Iterator[bytes]:
        yield CHUNK
        assert service.began.wait(5)
        raise CameraError("unplugged")

    with pytest.raises(CameraError, match="unplugged"):
        adapter.transcribe(target, failing_source())
    assert service.ended.wait(5)


def test_a_failing_async_source_raises_its_own_error(service: FakeLipReading, target: str) -> None:
    service.script = stream_until_cancelled

    async def failing_source() -> AsyncIterator[bytes]:
        yield CHUNK
        assert await asyncio.to_thread(service.began.wait, 5)
        raise asyncio.InvalidStateError("not gRPC's")

    with pytest.raises(asyncio.InvalidStateError, match="not gRPC's"):
        AsyncAdapter().transcribe(target, failing_source())
    assert service.ended.wait(5)


def test_a_read_error_within_a_file_is_raised(
    adapter: ClientAdapter, service: FakeLipReading, target: str, tmp_path: Path
) -> None:
    service.script = stream_until_cancelled
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(CHUNK)

    class FailingFile:
        name = "clip.mp4"

        def read(self, size: int) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        adapter.transcribe(target, FailingFile())


def test_an_error_in_the_event_callback_ends_the_call(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    service.script = stream_until_cancelled

    def raise_error(event: gorggle.Event) -> None:
        raise CameraError("in the callback")

    with pytest.raises(CameraError, match="in the callback"):
        adapter.transcribe(target, endless(), on_event=raise_error)
    assert service.ended.wait(5)


def test_files_are_closed_after_a_failed_stream(
    adapter: ClientAdapter, service: FakeLipReading, target: str, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(CHUNK * 100)
    for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL):
        service.script = fake_service.ending(code, "refused", first=False)
        with pytest.raises(gorggle.GorggleError):
            adapter.transcribe(target, clip)
    deadline = time.monotonic() + 5
    while _open_files(clip) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _open_files(clip)


def _open_files(path: Path) -> list[Path]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if descriptor.resolve() == path:
                found.append(descriptor)
        except OSError:
            continue
    return found


# -------------------------------------------------------------------------------------------------------- connecting


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_a_refused_connection_is_reported_at_once_with_the_address(adapter: ClientAdapter) -> None:
    target = f"127.0.0.1:{free_port()}"
    started_at = time.monotonic()
    with pytest.raises(gorggle.UnavailableError, match=target) as caught:
        adapter.call(target, "models")
    with pytest.raises(gorggle.UnavailableError, match=target):
        adapter.transcribe(target, endless())
    assert time.monotonic() - started_at < 5
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_an_unresponsive_host_fails_after_the_connect_timeout(adapter: ClientAdapter) -> None:
    with socket.socket() as unresponsive:
        unresponsive.bind(("127.0.0.1", 0))
        unresponsive.listen(8)
        target = f"127.0.0.1:{unresponsive.getsockname()[1]}"
        started_at = time.monotonic()
        with pytest.raises(gorggle.UnavailableError, match=target):
            adapter.transcribe(target, endless(), settings={"connect_timeout_s": 0.5})
        assert 0.4 < time.monotonic() - started_at < 5


def test_a_stopped_server_is_unavailable(make_server: MakeServer) -> None:
    service, port = make_server()
    service.script = fake_service.ending(
        grpc.StatusCode.UNAVAILABLE,
        "shutting down",
        fake_service.error_trailer(grpc.StatusCode.UNAVAILABLE, "shutting down", reason="NOT_READY"),
    )
    with pytest.raises(gorggle.UnavailableError, match=r"^shutting down$"):
        SyncAdapter().transcribe(f"127.0.0.1:{port}", b"media")


def test_wait_until_ready_waits_until_the_models_are_loaded(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    service.not_ready_for = 3
    assert adapter.call(target, "wait_until_ready", 10).version == "0.1.0"
    assert service.not_ready_for == 0


def test_wait_until_ready_waits_for_a_server_that_starts_later(
    adapter: ClientAdapter, make_server: MakeServer
) -> None:
    port = free_port()
    start_timer = threading.Timer(0.5, make_server, kwargs={"port": port})
    start_timer.start()
    assert adapter.call(f"127.0.0.1:{port}", "wait_until_ready", 20).default_model == "grid"
    start_timer.join()


def test_the_wait_timeout_error_contains_the_last_error(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    service.not_ready_for = 10_000
    started_at = time.monotonic()
    with pytest.raises(
        gorggle.UnavailableError, match=r"not ready within 0.5 s: the models are still being loaded"
    ):
        adapter.call(target, "wait_until_ready", 0.5)
    assert time.monotonic() - started_at < 5


def test_another_kind_of_grpc_server_is_reported(adapter: ClientAdapter) -> None:
    from concurrent import futures

    other = grpc.server(futures.ThreadPoolExecutor(2))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with pytest.raises(gorggle.ServerError, match="not a Gorggle server"):
            adapter.call(f"127.0.0.1:{port}", "server_info")
    finally:
        other.stop(None).wait()
