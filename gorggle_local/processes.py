"""Child processes of ``gorggle local``, each with its own log file."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0
LOG_TAIL_LINES = 12


class ServiceError(Exception):
    """A service did not start, or exited; the message contains the end of its log."""


class ManagedProcess:
    """A process that prints a line of JSON when it is ready, and exits when its standard input is closed.

    Args:
        name: of the service and its log file.
        command: program and arguments.
        logs: folder of the log files.

    Attributes:
        ready_info: the JSON object that it printed; empty until it is ready.
    """

    def __init__(self, name: str, command: Sequence[str], logs: Path) -> None:
        self.name, self.log = name, logs / f"{name}.log"
        self.ready_info: dict[str, Any] = {}
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def start(self) -> None:
        """Start the process."""
        self._spawn("wb")

    def restart(self, command: Sequence[str]) -> None:
        """Start the process again after it has exited, and append to its log."""
        self._command = list(command)
        self._spawn("ab")

    def wait_until_ready(self) -> None:
        """Wait until the process is ready.

        Raises:
            ServiceError: it is not ready in time, or exits.
        """
        assert self._process is not None, "started before"
        end = time.monotonic() + START_TIMEOUT_S
        while not self.ready_info:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise ServiceError(
                    f"{self.name} was not ready after {START_TIMEOUT_S:g} s{self._log_tail()}"
                ) from None
            if not line:
                raise self.exit_error()
            with contextlib.suppress(ValueError):
                document = json.loads(line)
                self.ready_info = document if isinstance(document, dict) else {}

    def _spawn(self, mode: str) -> None:
        self._lines = queue.SimpleQueue()
        self.ready_info = {}
        with self.log.open(mode) as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C must reach the parent only, which stops the processes in order.
                start_new_session=True,
            )
        threading.Thread(target=self._copy_output, args=(self._process, self._lines), daemon=True).start()

    @property
    def has_exited(self) -> bool:
        """Whether the process has exited."""
        return self._process is not None and self._process.poll() is not None

    def exit_error(self) -> ServiceError:
        """Return the error for a process that has exited."""
        code = self._process.wait() if self._process else None
        return ServiceError(f"{self.name} exited with code {code}{self._log_tail()}")

    def stop(self) -> None:
        """Stop the process; kill it after a timeout."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def _copy_output(self, process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes]) -> None:
        """Copy standard output to the log and to the queue; an empty item marks its end."""
        with self.log.open("ab") as log:
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                lines.put(line)
        lines.put(b"")

    def _log_tail(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        except OSError:
            return ""
        return "".join(f"\n    {line}" for line in lines) + f"\n  (full log: {self.log})"
