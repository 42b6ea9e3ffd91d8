"""Watchdog of the event loop: it serves every call, so blocking it delays every client.

A task on the loop records the time regularly, and a thread checks its age. If a call blocks the loop, the blocking stack is
logged once; if the loop stays blocked, ``/livez`` fails, and the supervisor restarts the server.
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
# Blocked for the first duration is a bug to log; for the second, the server counts as dead.
STALL_TIMEOUT_S, DEAD_TIMEOUT_S = 2.0, 60.0

_log = logging.getLogger(__name__)


class EventLoopWatchdog:
    """Watches the running loop from ``start`` to ``stop``.

    Args:
        on_lag: called every quarter of a second with the lag of the loop in seconds.
        stall_timeout_s: how long the loop may be blocked before its stack is logged.
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
        """Whether the loop ran recently; true before the start and after the stop."""
        return self._task is None or time.monotonic() - self._last_tick < self._dead_timeout_s

    def count_tasks(self) -> int:
        """Return the number of tasks on the loop. Thread-safe."""
        return 0 if self._loop is None else len(asyncio.all_tasks(self._loop))

    def start(self) -> None:
        """Start watching the current loop."""
        self._loop = asyncio.get_running_loop()
        self._last_tick = time.monotonic()
        self._task = asyncio.ensure_future(self._tick())
        watcher = threading.Thread(
            target=self._watch, args=(threading.get_ident(),), name="event-loop-watch", daemon=True
        )
        watcher.start()

    def stop(self) -> None:
        """Stop watching."""
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
        reported = 0.0
        while not self._stopped.wait(TICK_INTERVAL_S):
            ticked_at = self._last_tick
            if time.monotonic() - ticked_at < self._stall_timeout_s or ticked_at == reported:
                continue
            reported = ticked_at
            frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 - the one way to another thread's stack
            stack = "".join(traceback.format_stack(frame)) if frame is not None else "(the thread has ended)"
            _log.error("the event loop has been blocked for %.1f s at:\n%s", self._stall_timeout_s, stack)
