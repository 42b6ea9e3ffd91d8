"""A bounded byte pipe between the event loop, which receives media, and a decoding thread."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_CAPACITY_BYTES = 2**20


class BytePipe:
    """A pipe with one writer, one reader and a buffer of ``capacity_bytes``.

    When the buffer is full, ``write`` blocks and ``write_async`` waits. Either side may ``abort``, which raises the
    error on both sides, also in waiting calls. There is no ``seek``: FFmpeg would block when it seeks in a stream that is
    still growing.

    Attributes:
        wait_time_s: seconds that ``read`` has waited for data.
    """

    def __init__(self, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        self._capacity = capacity_bytes
        self._buffer = bytearray()  # not a queue of chunks: a million chunks of one byte would take 100 MB
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._wake_writer: Callable[[], None] | None = None
        self._on_abort: Callable[[], None] | None = None
        self.wait_time_s = 0.0

    @property
    def buffered_bytes(self) -> int:
        """Bytes waiting to be read."""
        return len(self._buffer)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of ``data``, blocking while the buffer is full."""
        rest = memoryview(data)
        with self._changed:
            while rest:
                self._changed.wait_for(self._is_writable)
                rest = rest[self._accept(rest) :]

    async def write_async(self, data: bytes | memoryview) -> None:
        """Write all of ``data``, waiting without blocking the event loop while the buffer is full."""
        rest = memoryview(data)
        while rest:
            with self._changed:
                taken = self._accept(rest)
                room = None if taken else self._create_room_future()
            rest = rest[taken:]
            if room is not None:
                await room

    def close(self) -> None:
        """End the input: ``read`` returns ``b""`` after the buffered bytes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self, error: BaseException) -> None:
        """Make every waiting and later ``read`` and ``write`` raise ``error``; the first error wins."""
        with self._changed:
            self._error = self._error or error
            self._buffer.clear()
            self._notify_writer()
            self._changed.notify_all()
            callback = self._on_abort
        if callback is not None:
            callback()

    def set_abort_callback(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on an abort, from whatever thread aborts; at once where that has happened already.

        For a reader that may be waiting for something else than this pipe.
        """
        with self._changed:
            self._on_abort = callback
            is_late = self._error is not None
        if is_late:
            callback()

    def raise_abort(self) -> None:
        """Raise the error of ``abort``, if there is one."""
        with self._changed:
            if self._error is not None:
                raise self._error

    def read(self, size: int) -> bytes:
        """Return 1 to ``size`` bytes as soon as there are any; ``b""`` at the end of the input."""
        with self._changed:
            if not self._is_readable():
                began = time.monotonic()
                self._changed.wait_for(self._is_readable)
                self.wait_time_s += time.monotonic() - began
            if self._error is not None:
                raise self._error
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
            # Wake the writer only when the buffer is half empty, to reduce thread switches.
            if len(self._buffer) <= self._capacity // 2:
                self._notify_writer()
                self._changed.notify_all()
            return data

    def _is_readable(self) -> bool:
        return bool(self._buffer) or self._closed or self._error is not None

    def _is_writable(self) -> bool:
        return len(self._buffer) < self._capacity or self._error is not None

    def _accept(self, data: memoryview) -> int:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise ValueError("the pipe is closed: no data may follow the end of the input")
        taken = min(len(data), self._capacity - len(self._buffer))
        self._buffer += data[:taken]
        self._changed.notify_all()
        return taken

    def _create_room_future(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        room: asyncio.Future[None] = loop.create_future()

        def fulfil() -> None:
            if not room.done():
                room.set_result(None)

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(fulfil)

        self._wake_writer = wake
        return room

    def _notify_writer(self) -> None:
        if self._wake_writer is not None:
            self._wake_writer()
            self._wake_writer = None
