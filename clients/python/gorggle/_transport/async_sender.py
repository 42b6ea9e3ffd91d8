"""``delivery`` for asyncio: the media of one stream, sent by a task for each call that carries the stream."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from gorggle._protobuf.encode import StreamRequest, encode_heartbeat
from gorggle._transport.sender import ReplayBuffer
from gorggle.sources import AsyncMessages, Media, Messages


class AsyncMediaSender(ReplayBuffer):
    """Sends one source through as many calls as it takes. For one event loop."""

    def __init__(self, media: Media, replay_buffer_bytes: int, heartbeat_interval_s: float) -> None:
        super().__init__(replay_buffer_bytes)
        self._media, self._heartbeat_interval_s = media, heartbeat_interval_s
        self._source: AsyncGenerator[StreamRequest, None] | None = None
        self._read_task: asyncio.Task[None] | None = None
        self._has_started = False

    def check_replayable(self, acknowledged: int) -> None:
        """Make sure that everything after a number can be sent; see ``Backlog.check_replayable``."""
        if self._media.reopen is None:
            super().check_replayable(acknowledged)

    def drop(self) -> None:
        """Let go of the source, without waiting for it."""
        if self._read_task is not None:
            self._read_task.cancel()

    async def aclose(self) -> None:
        """Let go of the source."""
        self.drop()
        if self._read_task is not None:
            await asyncio.wait([self._read_task])
        if self._source is not None:
            await self._source.aclose()

    async def send(self, call: Any, opening: StreamRequest, acknowledged: int) -> None:
        """Send the configuration, then the media after a request; where the source fails, keep why and end the call."""
        try:
            messages = (
                self._replay_source(acknowledged) if self._media.reopen else self._stream_live(acknowledged)
            )
            async with contextlib.aclosing(messages):
                is_open = await _write(call, opening)
                async for message in messages:
                    self._count_bytes(message)
                    is_open = is_open and await _write(call, message)
                    if not is_open:
                        return
            await _finish_writing(call)
        except Exception as error:
            self.source_error = error
            call.cancel()

    async def _replay_source(self, acknowledged: int) -> AsyncGenerator[StreamRequest, None]:
        source = self._media.reopen() if self._has_started and self._media.reopen else self._media.messages
        self._has_started = True
        number = 0
        async with contextlib.aclosing(to_async_iterator(source)) as messages:
            async for message in messages:
                number += 1
                if number > acknowledged:
                    message.sequence = number
                    yield message

    async def _stream_live(self, acknowledged: int) -> AsyncGenerator[StreamRequest, None]:
        number = acknowledged
        while True:
            message = self._get_after(number)
            if message is not None:
                number = message.sequence
                yield message
            elif self._is_ended:
                return
            elif not await self._wait_for_message():
                yield encode_heartbeat()

    async def _wait_for_message(self) -> bool:
        """Wait for the source; false where it has nothing for a while."""
        if self._source is None:
            self._source = to_async_iterator(self._media.messages)
        if self._read_task is None:
            self._read_task = asyncio.create_task(self._read_next(self._source))
        done, _ = await asyncio.wait([self._read_task], timeout=self._heartbeat_interval_s)
        if not done:
            return False
        reading, self._read_task = self._read_task, None
        reading.result()
        return True

    async def _read_next(self, messages: AsyncIterator[StreamRequest]) -> None:
        try:
            self._retain(await anext(messages))
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


async def _finish_writing(call: Any) -> None:
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
