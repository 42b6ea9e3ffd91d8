"""Cancels a call without responses: a dead connection may not be reported otherwise."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any


class CallWatchdog:
    """Watches one call at a time, in a thread that starts with the first timeout.

    Attributes:
        timed_out: whether the last wait was cancelled.
    """

    def __init__(self) -> None:
        self.timed_out = False
        self._state = _WatchdogState()

    @contextlib.contextmanager
    def guard(self, call: Any, timeout_s: float | None) -> Iterator[None]:
        """Cancel the call if the block, which waits for a response, exceeds the timeout; None disables it."""
        self.timed_out = False
        if timeout_s is None:
            yield
            return
        self._state.arm(call, timeout_s)
        try:
            yield
        finally:
            self.timed_out = self._state.disarm()

    def close(self) -> None:
        """Stop the thread."""
        self._state.close()


class _WatchdogState:
    """State shared with the thread; separate, so that the thread holds no reference to the watchdog's owner."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._call: Any = None
        self._expires_at = 0.0
        self._timed_out = self._is_closed = False
        self._thread: threading.Thread | None = None

    def arm(self, call: Any, timeout_s: float) -> None:
        with self._changed:
            self._call, self._timed_out = call, False
            self._expires_at = time.monotonic() + timeout_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gorggle-watch", daemon=True)
                self._thread.start()
            self._changed.notify()

    def disarm(self) -> bool:
        with self._changed:
            self._call = None
            return self._timed_out

    def close(self) -> None:
        with self._changed:
            self._is_closed, self._call = True, None
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                left_s = self._expires_at - time.monotonic()
                if self._call is None:
                    self._changed.wait()
                elif left_s > 0:
                    self._changed.wait(left_s)
                else:
                    call, self._call, self._timed_out = self._call, None, True
                    call.cancel()
