"""Cancels a call without responses: a dead connection may not be reported otherwise."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any


class CallWatchdog:
    """Watches one call at a time, in a thread that starts with the first timeout.

    Holds no reference to its owner, so that a dropped owner is garbage-collected although the thread runs.

    Attributes:
        timed_out: whether the last wait was cancelled.
    """

    def __init__(self) -> None:
        self.timed_out = False
        self._changed = threading.Condition()
        self._call: Any = None
        self._expires_at = 0.0
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def guard(self, call: Any, timeout_s: float | None) -> Iterator[None]:
        """Cancel the call if the block, which waits for a response, exceeds the timeout; None disables it."""
        self.timed_out = False
        if timeout_s is None:
            yield
            return
        with self._changed:
            self._call, self._expires_at = call, time.monotonic() + timeout_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gorggle-watch", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._call = None

    def close(self) -> None:
        """Stop the thread."""
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
                    call, self._call, self.timed_out = self._call, None, True
                    call.cancel()
