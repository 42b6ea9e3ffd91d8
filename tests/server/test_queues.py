"""Input and event queues between the event loop and the threads of a stream."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gorggle_server.errors import InvalidMediaError
from gorggle_server.streaming.queues import EventQueue, InputQueue


def test_put_waits_while_the_input_queue_is_full() -> None:
    async def run_queue() -> tuple[list[int], list[int]]:
        queue: InputQueue[int] = InputQueue(capacity_bytes=100)
        put: list[int] = []

        async def send() -> None:
            for number in range(10):
                await queue.put(number, 40)
                put.append(number)
            queue.close()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.05)
        before_reading = list(put)
        taken = []
        while (item := await asyncio.to_thread(queue.get)) is not None:
            taken.append(item)
        await sending
        return before_reading, taken

    before_reading, taken = asyncio.run(run_queue())
    assert before_reading == [0, 1]
    assert taken == list(range(10))


def test_an_item_larger_than_the_input_queue_is_accepted() -> None:
    async def run_queue() -> bytes | None:
        queue: InputQueue[bytes] = InputQueue(capacity_bytes=10)
        await asyncio.wait_for(queue.put(b"x" * 50, 50), 1)
        return await asyncio.to_thread(queue.get)

    assert asyncio.run(run_queue()) == b"x" * 50


def test_abort_unblocks_reader_and_writer() -> None:
    async def run_queue() -> None:
        queue: InputQueue[int] = InputQueue(capacity_bytes=1)
        await queue.put(1, 1)
        waiting = asyncio.create_task(queue.put(2, 1))
        await asyncio.sleep(0.02)
        queue.abort(InvalidMediaError("broken"))
        await asyncio.wait_for(waiting, 1)
        with pytest.raises(InvalidMediaError, match="broken"):
            await asyncio.to_thread(queue.get)

    asyncio.run(run_queue())


def test_an_event_queue_yields_in_order_and_then_raises_the_error() -> None:
    async def run_queue() -> list[int]:
        queue: EventQueue[int] = EventQueue(capacity=4)

        def produce() -> None:
            for number in range(50):
                queue.wait_for_capacity()
                queue.put(number)
            queue.close(InvalidMediaError("at the end"))

        threading.Thread(target=produce, daemon=True).start()
        received = []

        async def receive() -> None:
            async for number in queue:
                received.append(number)
                await asyncio.sleep(0)

        with pytest.raises(InvalidMediaError, match="at the end"):
            await receive()
        return received

    assert asyncio.run(run_queue()) == list(range(50))


def test_an_event_queue_blocks_the_producer_while_the_reader_lags() -> None:
    async def run_queue() -> int:
        queue: EventQueue[int] = EventQueue(capacity=4)
        produced = 0

        def produce() -> None:
            nonlocal produced
            for number in range(100):
                queue.wait_for_capacity()
                queue.put(number)
                produced += 1

        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        await asyncio.sleep(0.05)
        held_at = produced
        queue.close()
        await asyncio.to_thread(thread.join, 2)
        assert not thread.is_alive()
        return held_at

    assert asyncio.run(run_queue()) == 4
