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
        self.has_given_up = False
        self._state = _State()

    @contextlib.contextmanager
    def guard(self, call: Any, limit_s: float | None) -> Iterator[None]:
        """While the next answer is waited for: cancel the call after so many seconds; None: wait for ever."""
        self.has_given_up = False
        if limit_s is None:
            yield
            return
        self._state.begin(call, limit_s)
        try:
            yield
        finally:
            self.has_given_up = self._state.end()

    def close(self) -> None:
        """Let the thread end."""
        self._state.close()


class _State:
    """What the thread sees; it holds nothing of whoever waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._call: Any = None
        self._gives_up_at = 0.0
        self._has_given_up = self._is_closed = False
        self._thread: threading.Thread | None = None

    def begin(self, call: Any, limit_s: float) -> None:
        with self._changed:
            self._call, self._has_given_up = call, False
            self._gives_up_at = time.monotonic() + limit_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gorggle-watch", daemon=True)
                self._thread.start()
            self._changed.notify()

    def end(self) -> bool:
        with self._changed:
            self._call = None
            return self._has_given_up

    def close(self) -> None:
        with self._changed:
            self._is_closed, self._call = True, None
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                left_s = self._gives_up_at - time.monotonic()
                if self._call is None:
                    self._changed.wait()
                elif left_s > 0:
                    self._changed.wait(left_s)
                else:
                    call, self._call, self._has_given_up = self._call, None, True
                    call.cancel()
