"""CPU time of one stream: its thread and its decoder subprocess."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS_HZ = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class CpuTimer:
    """CPU seconds of one stream, as far as the operating system reports them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread_clock: int | None = None  # of the tracked thread
        self._thread_start_s = 0.0
        self._pid: int | None = None
        self._process_cpu_s = self._finished_processes_s = self._finished_threads_s = 0.0

    @property
    def total_s(self) -> float:
        """CPU seconds so far."""
        with self._lock:
            if self._pid is not None:
                # A process that has ended keeps the last value.
                self._process_cpu_s = max(self._process_cpu_s, _read_process_cpu_s(self._pid))
            return self._finished_processes_s + self._process_cpu_s + self._get_thread_s()

    @property
    def thread_s(self) -> float:
        """CPU seconds of this process's thread alone."""
        with self._lock:
            return self._get_thread_s()

    @contextlib.contextmanager
    def track_current_thread(self) -> Iterator[None]:
        """Count the CPU time of the current thread inside the block."""
        if not hasattr(time, "pthread_getcpuclockid"):
            yield
            return
        with self._lock:
            self._thread_clock = time.pthread_getcpuclockid(threading.get_ident())
            self._thread_start_s = time.clock_gettime(self._thread_clock)
        try:
            yield
        finally:
            with self._lock:
                self._finished_threads_s, self._thread_clock = self._get_thread_s(), None

    @contextlib.contextmanager
    def track_process(self, pid: int) -> Iterator[None]:
        """Count the CPU time of a process during the block."""
        with self._lock:
            self._pid = pid
        try:
            yield
        finally:
            with self._lock:
                self._finished_processes_s += max(self._process_cpu_s, _read_process_cpu_s(pid))
                self._pid, self._process_cpu_s = None, 0.0

    def _get_thread_s(self) -> float:
        if self._thread_clock is None:
            return self._finished_threads_s
        return self._finished_threads_s + time.clock_gettime(self._thread_clock) - self._thread_start_s


def _read_process_cpu_s(pid: int) -> float:
    """Return a process's CPU seconds, or 0 where unavailable (proc(5): fields 14 and 15 of ``stat``)."""
    try:
        # The command name, in parentheses, may contain any character.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_HZ
