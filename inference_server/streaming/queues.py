"""Bounded queues between the event loop and the worker threads of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ClientDisconnectedError(Exception):
    """The caller has disconnected: the session may end without an error message."""


class _Bridge:
    """A condition for the thread's side and an asyncio event for the event loop's side."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def _wake_loop(self) -> None:
        # A RuntimeError means that the loop has ended, and the waiting task with it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)


class InputQueue(_Bridge, Generic[T]):
    """A queue from one asyncio task to one thread that holds at most ``capacity_bytes``.

    A larger item is accepted when the queue is empty.

    Attributes:
        buffered_bytes: bytes in the queue.
        wait_time_s: seconds that ``get`` has spent waiting for items.
    """

    def __init__(self, capacity_bytes: int) -> None:
        super().__init__()
        self._capacity_bytes = capacity_bytes
        self._items: deque[tuple[T, int]] = deque()
        self.buffered_bytes = 0
        self._is_closed = False
        self._error: BaseException | None = None
        self.wait_time_s = 0.0

    async def put(self, item: T, size_bytes: int) -> None:
        """Add an item, waiting for capacity; it is dropped if the queue was aborted."""
        while True:
            self._event.clear()
            with self._condition:
                if self._error is not None:
                    return
                if self.buffered_bytes == 0 or self.buffered_bytes + size_bytes <= self._capacity_bytes:
                    self._items.append((item, size_bytes))
                    self.buffered_bytes += size_bytes
                    self._condition.notify()
                    return
            await self._event.wait()

    def close(self) -> None:
        """Mark the end: no more items will be added."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()

    def abort(self, error: BaseException) -> None:
        """Discard the items and make every later ``get`` raise the first ``error`` given."""
        with self._condition:
            if self._error is None:
                self._error = error
            self._items.clear()
            self.buffered_bytes = 0
            self._condition.notify()
        self._wake_loop()

    def get(self) -> T | None:
        """Wait for the next item and return it; None at the end.

        Raises:
            BaseException: the error passed to ``abort``.
        """
        with self._condition:
            started_at = time.monotonic()
            self._condition.wait_for(lambda: self._items or self._is_closed or self._error is not None)
            self.wait_time_s += time.monotonic() - started_at
            if self._error is not None:
                raise self._error
            if not self._items:
                return None
            item, size_bytes = self._items.popleft()
            self.buffered_bytes -= size_bytes
        self._wake_loop()
        return item


class EventQueue(_Bridge, Generic[T]):
    """A queue from threads to one asyncio task.

    ``put`` never blocks, so any thread may call it. A thread that produces many items calls ``wait_for_capacity``
    first, which blocks while the reader lags.
    """

    def __init__(self, capacity: int = 64) -> None:
        super().__init__()
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_closed = False
        self._last_put_at = time.monotonic()

    def put(self, item: T) -> None:
        """Add an item; it is dropped if the queue is closed."""
        with self._condition:
            if not self._is_closed:
                self._items.append(item)
                self._last_put_at = time.monotonic()
        self._wake_loop()

    @property
    def idle_time_s(self) -> float:
        """Seconds since the last ``put``; 0 while items wait to be read."""
        with self._condition:
            return 0.0 if self._items else time.monotonic() - self._last_put_at

    def close(self, error: BaseException | None = None) -> None:
        """Close the queue: after the remaining items the reader ends, or raises ``error``."""
        with self._condition:
            if not self._is_closed:
                self._is_closed, self._error = True, error
            self._condition.notify_all()
        self._wake_loop()

    def wait_for_capacity(self) -> None:
        """Block the calling thread while the queue is full and open."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed or len(self._items) < self._capacity)

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield the items as they arrive."""
        while True:
            self._event.clear()
            with self._condition:
                items, is_closed = list(self._items), self._is_closed
                self._items.clear()
                self._condition.notify_all()
            for item in items:
                yield item
            if is_closed:
                break
            if not items:
                await self._event.wait()
        if self._error is not None:
            raise self._error
