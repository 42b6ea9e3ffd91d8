"""``delivery`` for asyncio: the media of one stream, sent by a task for each call that carries the stream."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from gorggle._protobuf.encode import StreamRequest, heartbeat_message
from gorggle._transport.sender import ReplayBuffer
from gorggle.sources import AsyncMessages, Media, Messages


class AsyncMediaSender(ReplayBuffer):
    """Sends one source through as many calls as it takes. For one event loop."""

    def __init__(self, media: Media, replay_buffer_bytes: int, heartbeat_interval_s: float) -> None:
        super().__init__(replay_buffer_bytes)
        self._media, self._heartbeat_interval_s = media, heartbeat_interval_s
        self._live: AsyncGenerator[StreamRequest, None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._has_begun = False

    def check(self, acknowledged: int) -> None:
        """Make sure that everything after a number can be sent; see ``Backlog.check``."""
        if self._media.again is None:
            super().check(acknowledged)

    def drop(self) -> None:
        """Let go of the source, without waiting for it."""
        if self._reading is not None:
            self._reading.cancel()

    async def aclose(self) -> None:
        """Let go of the source."""
        self.drop()
        if self._reading is not None:
            await asyncio.wait([self._reading])
        if self._live is not None:
            await self._live.aclose()

    async def send(self, call: Any, opening: StreamRequest, acknowledged: int) -> None:
        """Send the configuration, then the media after a request; where the source fails, keep why and end the call."""
        try:
            messages = self._read_again(acknowledged) if self._media.again else self._read_on(acknowledged)
            async with contextlib.aclosing(messages):
                is_open = await _write(call, opening)
                async for message in messages:
                    self._count(message)
                    is_open = is_open and await _write(call, message)
                    if not is_open:
                        return
            await _end_of_requests(call)
        except Exception as error:
            self.failure = error
            call.cancel()

    async def _read_again(self, acknowledged: int) -> AsyncGenerator[StreamRequest, None]:
        source = self._media.again() if self._has_begun and self._media.again else self._media.messages
        self._has_begun = True
        number = 0
        async with contextlib.aclosing(to_async_iterator(source)) as messages:
            async for message in messages:
                number += 1
                if number > acknowledged:
                    message.sequence = number
                    yield message

    async def _read_on(self, acknowledged: int) -> AsyncGenerator[StreamRequest, None]:
        number = acknowledged
        while True:
            message = self._kept_after(number)
            if message is not None:
                number = message.sequence
                yield message
            elif self._is_ended:
                return
            elif not await self._has_read_more():
                yield heartbeat_message()

    async def _has_read_more(self) -> bool:
        """Wait for the source; false where it has nothing for a while."""
        if self._live is None:
            self._live = to_async_iterator(self._media.messages)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(self._live))
        done, _ = await asyncio.wait([self._reading], timeout=self._heartbeat_interval_s)
        if not done:
            return False
        reading, self._reading = self._reading, None
        reading.result()
        return True

    async def _read(self, messages: AsyncIterator[StreamRequest]) -> None:
        try:
            self._keep(await anext(messages))
        except StopAsyncIteration:
            self._is_ended = True


async def _write(call: Any, message: StreamRequest) -> bool:
    """Send a message; false where the call has ended meanwhile: reading its answers tells why.

    A call that ended raises ``InvalidStateError`` here, not the error that it ended with.
    """
    try:
        await call.write(message)
    except (asyncio.InvalidStateError, grpc.RpcError):
        return False
    return True


async def _end_of_requests(call: Any) -> None:
    with contextlib.suppress(asyncio.InvalidStateError, grpc.RpcError):
        await call.done_writing()


async def to_async_iterator(messages: Messages | AsyncMessages) -> AsyncGenerator[StreamRequest, None]:
    """A source's messages; those of an ordinary iterator are made in other threads, one at a time."""
    if isinstance(messages, AsyncGenerator):
        async with contextlib.aclosing(messages):
            async for message in messages:
                yield message
        return
    in_use = threading.Lock()

    def following() -> StreamRequest | None:
        with in_use:
            return next(messages, None)

    def close() -> None:
        with in_use:
            messages.close()

    try:
        while (made := await asyncio.to_thread(following)) is not None:
            yield made
    finally:
        if in_use.acquire(blocking=False):
            try:
                messages.close()
            finally:
                in_use.release()
        else:
            # Another thread still reads, perhaps for ever: the source is closed when that is over.
            threading.Thread(target=close, daemon=True).start()
