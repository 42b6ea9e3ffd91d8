"""Gives up a call on which nothing comes for too long: a connection may be dead without anybody saying so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any


class CallWatchdog:
    """Watches over one call at a time, in a thread of its own that begins with the first limit.

    Attributes:
        has_given_up: whether the last wait ended so.
    """

    def __init__(self) -> None:
        self.timed_out = False
        self._state = _WatchdogState()

    @contextlib.contextmanager
    def guard(self, call: Any, timeout_s: float | None) -> Iterator[None]:
        """While the next answer is waited for: cancel the call after so many seconds; None: wait for ever."""
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
        """Let the thread end."""
        self._state.close()


class _WatchdogState:
    """What the thread sees; it holds nothing of whoever waits."""

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
