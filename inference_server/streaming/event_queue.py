"""What a stream's threads have to say, on its way to the event loop: bounded, without blocking the device's thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class EventQueue(Generic[T]):
    """A queue from threads to one asyncio task.

    ``put`` never blocks, so that any thread may call it; whoever produces much calls ``wait_for_room`` first, which
    blocks while the reader lags.
    """

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._room = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._last_put_at = time.monotonic()

    def put(self, item: T) -> None:
        """Add an item; dropped once the outbox is closed."""
        with self._room:
            if not self._closed:
                self._items.append(item)
                self._last_put_at = time.monotonic()
        self._wake()

    @property
    def idle_time_s(self) -> float:
        """How long nothing was put; 0 while something waits to be read."""
        with self._room:
            return 0.0 if self._items else time.monotonic() - self._last_put_at

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will come; the reader ends, or raises ``error``, after what is already there."""
        with self._room:
            if not self._closed:
                self._closed, self._error = True, error
            self._room.notify_all()
        self._wake()

    def wait_for_capacity(self) -> None:
        """Block the calling thread while the outbox is full and open."""
        with self._room:
            self._room.wait_for(lambda: self._closed or len(self._items) < self._capacity)

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield the items as they come."""
        while True:
            self._filled.clear()
            with self._room:
                items, closed = list(self._items), self._closed
                self._items.clear()
                self._room.notify_all()
            for item in items:
                yield item
            if closed:
                break
            if not items:
                await self._filled.wait()
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        # A RuntimeError says that the loop has ended, and with it the reader.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._filled.set)
