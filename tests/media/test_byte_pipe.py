"""Byte pipe: a bounded byte queue between an event loop and a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from gorggle_server.media.byte_pipe import BytePipe


def run_in_thread(function: Callable[[], Any]) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function)
    pool.shutdown(wait=False)
    return future


def read_all(pipe: BytePipe, size: int) -> bytes:
    return b"".join(iter(lambda: pipe.read(size), b""))


def test_byte_order_is_independent_of_read_and_write_sizes() -> None:
    pipe = BytePipe(1000)
    data = bytes(range(256)) * 100
    reading = run_in_thread(lambda: read_all(pipe, 777))
    for start in range(0, len(data), 64):
        pipe.write(data[start : start + 64])
    pipe.write(b"")
    pipe.write(memoryview(data))
    pipe.close()
    assert reading.result(10) == data + data


def test_a_write_larger_than_the_capacity_is_split() -> None:
    pipe = BytePipe(10)
    reading = run_in_thread(lambda: read_all(pipe, 3))
    pipe.write(bytes(1000))
    pipe.close()
    assert len(reading.result(10)) == 1000


def test_read_returns_available_bytes_without_waiting_for_more() -> None:
    pipe = BytePipe()
    pipe.write(b"abc")
    assert pipe.read(100) == b"abc"


def test_a_writer_waits_for_a_slow_reader() -> None:
    pipe = BytePipe(100)
    pipe.write(bytes(100))
    writing = run_in_thread(lambda: pipe.write(b"x"))
    time.sleep(0.05)
    assert not writing.done()
    assert pipe.buffered_bytes == 100
    pipe.read(100)
    writing.result(10)


def test_a_reader_waits_for_a_slow_writer() -> None:
    pipe = BytePipe()
    reading = run_in_thread(lambda: pipe.read(10))
    time.sleep(0.05)
    assert not reading.done()
    pipe.write(b"now")
    assert reading.result(10) == b"now"


def test_a_waiting_write_does_not_block_the_event_loop() -> None:
    pipe = BytePipe(100)

    async def produce() -> int:
        ticks = 0
        writing = asyncio.ensure_future(pipe.write_async(bytes(10_000)))
        while not writing.done():
            await asyncio.sleep(0.001)
            ticks += 1
        pipe.close()
        return ticks

    def consume() -> int:
        total = 0
        while chunk := pipe.read(100):
            total += len(chunk)
            time.sleep(0.0005)
        return total

    consuming = run_in_thread(consume)
    assert asyncio.run(produce()) > 5
    assert consuming.result(10) == 10_000


def test_a_cancelled_write_leaves_the_pipe_usable() -> None:
    pipe = BytePipe(10)

    async def produce() -> None:
        await pipe.write_async(bytes(10))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pipe.write_async(b"more"), 0.01)
        assert pipe.read(10) == bytes(10)
        await asyncio.sleep(0)
        await pipe.write_async(b"again")

    asyncio.run(produce())
    assert pipe.read(10) == b"again"


def test_reading_works_after_the_event_loop_has_closed() -> None:
    pipe = BytePipe(10)

    async def produce() -> None:
        await pipe.write_async(bytes(10))
        asyncio.get_running_loop().call_later(0.01, lambda: None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pipe.write_async(b"more"), 0.01)

    asyncio.run(produce())
    assert pipe.read(10) == bytes(10)


@pytest.mark.parametrize("side", ["reader", "writer", "async writer"])
def test_abort_raises_in_blocked_calls(side: str) -> None:
    pipe = BytePipe(10)
    if side != "reader":
        pipe.write(bytes(10))
    calls = {
        "reader": lambda: pipe.read(1),
        "writer": lambda: pipe.write(b"x"),
        "async writer": lambda: asyncio.run(pipe.write_async(b"x")),
    }
    waiting = run_in_thread(calls[side])
    time.sleep(0.05)
    pipe.abort(ConnectionResetError("the client is gone"))
    pipe.abort(ValueError("a later error does not hide the first"))
    with pytest.raises(ConnectionResetError, match="the client is gone"):
        waiting.result(10)
    with pytest.raises(ConnectionResetError):
        pipe.write(b"x")
    with pytest.raises(ConnectionResetError):
        pipe.read(1)


def test_buffered_bytes_can_be_read_after_close() -> None:
    pipe = BytePipe()
    pipe.write(b"last words")
    pipe.close()
    assert pipe.read(4) == b"last"
    assert pipe.read(100) == b" words"
    assert pipe.read(100) == b""
    assert pipe.read(100) == b""


def test_writing_after_close_raises_value_error() -> None:
    pipe = BytePipe()
    pipe.close()
    with pytest.raises(ValueError, match="closed"):
        pipe.write(b"x")


def test_concurrent_writers_lose_no_bytes() -> None:
    pipe = BytePipe(128)
    lock, written = threading.Lock(), []

    def produce(byte: int) -> None:
        for _ in range(500):
            with lock:
                pipe.write(bytes([byte]))
                written.append(byte)

    with ThreadPoolExecutor(5) as pool:
        reading = pool.submit(read_all, pipe, 7)
        for future in [pool.submit(produce, byte) for byte in range(4)]:
            future.result(20)
        pipe.close()
        assert reading.result(20) == bytes(written)


def test_the_abort_callback_is_called_once_per_registration() -> None:
    pipe, calls = BytePipe(10), []
    pipe.set_abort_callback(lambda: calls.append("early"))
    pipe.raise_abort()
    assert calls == []
    pipe.abort(ConnectionResetError("the client is gone"))
    assert calls == ["early"]
    pipe.set_abort_callback(lambda: calls.append("late"))
    assert calls == ["early", "late"]
    with pytest.raises(ConnectionResetError, match="the client is gone"):
        pipe.raise_abort()
