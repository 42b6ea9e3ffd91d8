"""``sender`` for asyncio: one task per call sends the media of a stream."""

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

# What writing to a call that has ended raises: grpc.aio's own error, not the one that ended the call.
CALL_ENDED = (asyncio.InvalidStateError, grpc.RpcError)


class AsyncMediaSender(ReplayBuffer):
    """Sends one source through successive calls, in one event loop."""

    def __init__(self, media: Media, replay_buffer_bytes: int, heartbeat_interval_s: float) -> None:
        super().__init__(media, replay_buffer_bytes, heartbeat_interval_s)
        self._source: AsyncGenerator[StreamRequest, None] | None = None
        self._read_task: asyncio.Task[None] | None = None

    def drop(self) -> None:
        """Stop reading the source, without waiting."""
        if self._read_task is not None:
            self._read_task.cancel()

    async def aclose(self) -> None:
        """Stop reading and close the source."""
        self.drop()
        if self._read_task is not None:
            await asyncio.wait([self._read_task])
        if self._source is not None:
            await self._source.aclose()

    async def send(self, call: Any, first_request: StreamRequest, acknowledged: int) -> None:
        """Send the configuration, then the media after ``acknowledged``.

        An exception of the source is stored in ``source_error`` and cancels the call.
        """
        try:
            messages = (
                self._replay_source(acknowledged) if self._media.reopen else self._stream_live(acknowledged)
            )
            async with contextlib.aclosing(messages):
                is_open = await _write(call, first_request)
                async for message in messages:
                    self._count_bytes(message)
                    is_open = is_open and await _write(call, message)
                    if not is_open:
                        return
            with contextlib.suppress(*CALL_ENDED):
                await call.done_writing()
        except Exception as error:
            self.source_error = error
            call.cancel()

    async def _replay_source(self, acknowledged: int) -> AsyncGenerator[StreamRequest, None]:
        number = 0
        async with contextlib.aclosing(to_async_iterator(self._open_source())) as messages:
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
            elif self._source_ended:
                return
            elif not await self._wait_for_message():
                yield encode_heartbeat()

    async def _wait_for_message(self) -> bool:
        """Wait for the next message of the source; return False after an idle heartbeat interval."""
        if self._source is None:
            self._source = to_async_iterator(self._media.messages)
        if self._read_task is None:
            self._read_task = asyncio.create_task(self._read_next(self._source))
        done, _ = await asyncio.wait([self._read_task], timeout=self._heartbeat_interval_s)
        if not done:
            return False
        task, self._read_task = self._read_task, None
        task.result()
        return True

    async def _read_next(self, messages: AsyncIterator[StreamRequest]) -> None:
        try:
            self._retain(await anext(messages))
        except StopAsyncIteration:
            self._source_ended = True


async def _write(call: Any, message: StreamRequest) -> bool:
    """Send a message; return False if the call has ended, with a status that reading its responses raises."""
    try:
        await call.write(message)
    except CALL_ENDED:
        return False
    return True


async def to_async_iterator(messages: Messages | AsyncMessages) -> AsyncGenerator[StreamRequest, None]:
    """Yield a source's messages; a synchronous iterator runs in worker threads, one message at a time."""
    if isinstance(messages, AsyncGenerator):
        async with contextlib.aclosing(messages):
            async for message in messages:
                yield message
        return
    lock = threading.Lock()

    def read_next() -> StreamRequest | None:
        with lock:
            return next(messages, None)

    def close() -> None:
        with lock:
            messages.close()

    try:
        while (item := await asyncio.to_thread(read_next)) is not None:
            yield item
    finally:
        if lock.acquire(blocking=False):
            try:
                messages.close()
            finally:
                lock.release()
        else:
            # A thread is still reading, perhaps indefinitely: close the source afterwards.
            threading.Thread(target=close, daemon=True).start()
