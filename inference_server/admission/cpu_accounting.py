"""How much processor time one stream takes: its thread's, and that of its decoder, which sees as well."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS_HZ = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class CpuTimer:
    """The processor seconds of one stream, as far as the system tells them. May be asked from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock: int | None = None  # of the thread that is followed
        self._began_s = 0.0
        self._process: int | None = None
        self._process_s = self._done_s = 0.0
        self._own_done_s = 0.0

    @property
    def seconds(self) -> float:
        """Processor seconds so far."""
        with self._lock:
            if self._process is not None:
                # A process that has ended has used what it had when it was last looked at.
                self._process_s = max(self._process_s, _process_s(self._process))
            return self._done_s + self._process_s + self._thread_s()

    @property
    def own_seconds(self) -> float:
        """Those of this process's thread alone."""
        with self._lock:
            return self._own_done_s + self._thread_s()

    @contextlib.contextmanager
    def track_current_thread(self) -> Iterator[None]:
        """What this thread does inside is the stream's."""
        if not hasattr(time, "pthread_getcpuclockid"):
            yield
            return
        with self._lock:
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self._began_s = time.clock_gettime(self._clock)
        try:
            yield
        finally:
            with self._lock:
                took_s = self._thread_s()
                self._done_s += took_s
                self._own_done_s += took_s
                self._clock = None

    @contextlib.contextmanager
    def track_process(self, pid: int) -> Iterator[None]:
        """What a process does meanwhile is the stream's."""
        with self._lock:
            self._process = pid
        try:
            yield
        finally:
            with self._lock:
                self._done_s += max(self._process_s, _process_s(pid))
                self._process, self._process_s = None, 0.0

    def _thread_s(self) -> float:
        return 0.0 if self._clock is None else time.clock_gettime(self._clock) - self._began_s


def _process_s(pid: int) -> float:
    """A process's processor seconds; 0 where the system does not tell (proc(5): fields 14 and 15 of its ``stat``)."""
    try:
        # The name, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_HZ
