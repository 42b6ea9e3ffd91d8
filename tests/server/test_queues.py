"""The two queues between the event loop and a stream's threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gorggle_server.errors import InvalidMediaError
from gorggle_server.streaming.queues import EventQueue, InputQueue


def test_an_intake_slows_a_sender_that_is_faster_than_its_reader() -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        intake: InputQueue[int] = InputQueue(capacity_bytes=100)
        put: list[int] = []

        async def send() -> None:
            for number in range(10):
                await intake.put(number, 40)
                put.append(number)
            intake.close()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.05)
        before_reading = list(put)
        taken = []
        while (item := await asyncio.to_thread(intake.get)) is not None:
            taken.append(item)
        await sending
        return before_reading, taken

    before_reading, taken = asyncio.run(scenario())
    assert before_reading == [0, 1]
    assert taken == list(range(10))


def test_an_item_larger_than_the_intake_still_passes() -> None:
    async def scenario() -> bytes | None:
        intake: InputQueue[bytes] = InputQueue(capacity_bytes=10)
        await asyncio.wait_for(intake.put(b"x" * 50, 50), 1)
        return await asyncio.to_thread(intake.get)

    assert asyncio.run(scenario()) == b"x" * 50


def test_aborting_wakes_both_sides() -> None:
    async def scenario() -> None:
        intake: InputQueue[int] = InputQueue(capacity_bytes=1)
        await intake.put(1, 1)
        waiting = asyncio.create_task(intake.put(2, 1))
        await asyncio.sleep(0.02)
        intake.abort(InvalidMediaError("broken"))
        await asyncio.wait_for(waiting, 1)
        with pytest.raises(InvalidMediaError, match="broken"):
            await asyncio.to_thread(intake.get)

    asyncio.run(scenario())


def test_an_event_queue_yields_in_order_and_then_raises_the_error() -> None:
    async def scenario() -> list[int]:
        outbox: EventQueue[int] = EventQueue(capacity=4)

        def produce() -> None:
            for number in range(50):
                outbox.wait_for_capacity()
                outbox.put(number)
            outbox.close(InvalidMediaError("at the end"))

        threading.Thread(target=produce, daemon=True).start()
        received = []

        async def receive() -> None:
            async for number in outbox:
                received.append(number)
                await asyncio.sleep(0)

        with pytest.raises(InvalidMediaError, match="at the end"):
            await receive()
        return received

    assert asyncio.run(scenario()) == list(range(50))


def test_an_event_queue_blocks_the_producer_while_the_reader_lags() -> None:
    async def scenario() -> int:
        outbox: EventQueue[int] = EventQueue(capacity=4)
        produced = 0

        def produce() -> None:
            nonlocal produced
            for number in range(100):
                outbox.wait_for_capacity()
                outbox.put(number)
                produced += 1

        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        await asyncio.sleep(0.05)
        held_at = produced
        outbox.close()
        await asyncio.to_thread(thread.join, 2)
        assert not thread.is_alive()
        return held_at

    assert asyncio.run(scenario()) == 4
