"""A stream's media on its way from the event loop to the thread that perceives it: bounded, in order, abortable."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class ClientDisconnectedError(Exception):
    """The caller has gone: the session may end without a word."""


class InputQueue(Generic[T]):
    """A queue from one asyncio task to one thread that holds at most ``capacity_bytes``.

    A single item larger than that is taken when the queue is empty.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._buffered_bytes = 0
        self._ended = False
        self._error: BaseException | None = None
        self._filled = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._wait_time_s = 0.0

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait to be taken."""
        return self._buffered_bytes

    @property
    def wait_time_s(self) -> float:
        """For how many seconds ``take`` has waited for an item."""
        return self._wait_time_s

    async def put(self, item: T, size_bytes: int) -> None:
        """Add an item, waiting for room; dropped once the intake was aborted."""
        while True:
            self._room.clear()
            with self._filled:
                if self._error is not None:
                    return
                if self._buffered_bytes == 0 or self._buffered_bytes + size_bytes <= self._capacity_bytes:
                    self._items.append((item, size_bytes))
                    self._buffered_bytes += size_bytes
                    self._filled.notify()
                    return
            await self._room.wait()

    def close(self) -> None:
        """No more items will come."""
        with self._filled:
            self._ended = True
            self._filled.notify()

    def abort(self, error: BaseException) -> None:
        """Whoever takes next gets ``error``; the first one stays."""
        with self._filled:
            if self._error is None:
                self._error = error
            self._items.clear()
            self._buffered_bytes = 0
            self._filled.notify()
        self._make_room()

    def get(self) -> T | None:
        """The next item, waiting for it; None at the end.

        Raises:
            BaseException: what ``abort`` was given.
        """
        with self._filled:
            began = time.monotonic()
            self._filled.wait_for(lambda: self._items or self._ended or self._error is not None)
            self._wait_time_s += time.monotonic() - began
            if self._error is not None:
                raise self._error
            if not self._items:
                return None
            item, size_bytes = self._items.popleft()
            self._buffered_bytes -= size_bytes
        self._make_room()
        return item

    def _make_room(self) -> None:
        # A RuntimeError says that the loop has ended, and with it the task that waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._room.set)
