"""Watches the event loop from outside: it serves every call, so whatever holds it up holds up everybody.

A task on the loop notes the time again and again; a thread looks how long ago that was. Where a call blocks the loop, the
log gets the stack that does it, once; where it never comes back, ``/livez`` says so, and whoever runs the server restarts it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

TICK_INTERVAL_S = 0.25
# A loop that stood still for so long is a fault to find; for so long that the server is as good as dead.
STALL_TIMEOUT_S, DEAD_TIMEOUT_S = 2.0, 60.0

_log = logging.getLogger(__name__)


class EventLoopWatchdog:
    """Watches the running loop from ``start`` to ``stop``.

    Args:
        on_lag: is told, every quarter of a second, by how many seconds the loop was late.
        stall_timeout_s: how long the loop may stand still before its stack is logged.
        dead_timeout_s: how long before the process counts as dead.
    """

    def __init__(
        self,
        on_lag: Callable[[float], None],
        stall_timeout_s: float = STALL_TIMEOUT_S,
        dead_timeout_s: float = DEAD_TIMEOUT_S,
    ) -> None:
        self._on_lag, self._stall_timeout_s, self._dead_timeout_s = on_lag, stall_timeout_s, dead_timeout_s
        self._last_tick = time.monotonic()
        self._stopped = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the loop turned lately; true before the start and after the end."""
        return self._task is None or time.monotonic() - self._last_tick < self._dead_timeout_s

    def count_tasks(self) -> int:
        """How many tasks the loop has; may be asked from any thread."""
        return 0 if self._loop is None else len(asyncio.all_tasks(self._loop))

    def start(self) -> None:
        """Watch the loop that this is called on."""
        self._loop = asyncio.get_running_loop()
        self._last_tick = time.monotonic()
        self._task = asyncio.ensure_future(self._tick())
        watcher = threading.Thread(
            target=self._watch, args=(threading.get_ident(),), name="event-loop-watch", daemon=True
        )
        watcher.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_INTERVAL_S
            await asyncio.sleep(TICK_INTERVAL_S)
            self._last_tick = time.monotonic()
            self._on_lag(max(0.0, self._last_tick - due))

    def _watch(self, loop_thread: int) -> None:
        told_of = 0.0
        while not self._stopped.wait(TICK_INTERVAL_S):
            ticked_at = self._last_tick
            if time.monotonic() - ticked_at < self._stall_timeout_s or ticked_at == told_of:
                continue
            told_of = ticked_at
            frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 - the one way to another thread's stack
            stack = "".join(traceback.format_stack(frame)) if frame is not None else "(the thread has ended)"
            _log.error("the event loop has stood still for %.1f s at:\n%s", self._stall_timeout_s, stack)
