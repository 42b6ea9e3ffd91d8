"""The processes of the product: started in order, told to end in the other, their logs kept apart."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0
LOG_TAIL_LINES = 12


class ServiceError(Exception):
    """A service did not start, or ended by itself; the message has the last lines of its log."""


class ManagedProcess:
    """One process. It says with one line of JSON on standard output that it is ready, and ends with standard input.

    Args:
        name: of the service, and of its log.
        command: what to run.
        logs: folder of the logs.
        environment: variables beside those of this process.

    Attributes:
        told: what it said when it was ready.
    """

    def __init__(
        self, name: str, command: Sequence[str], logs: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, logs / f"{name}.log"
        self.ready_info: dict[str, Any] = {}
        self._command, self._environment = list(command), dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def start(self) -> None:
        """Start it."""
        self._spawn("wb")

    def restart(self, command: Sequence[str]) -> None:
        """Start it another time after it has ended by itself; its log goes on."""
        self._command = list(command)
        self._spawn("ab")

    def wait_until_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            ServiceError: it is not ready in time, or ends.
        """
        assert self._process is not None, "it was begun"
        end = time.monotonic() + START_TIMEOUT_S
        while not self.ready_info:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise ServiceError(
                    f"{self.name} was not ready within {START_TIMEOUT_S:g} s{self._log_tail()}"
                ) from None
            if not line:
                raise ServiceError(
                    f"{self.name} ended with exit code {self._process.wait()}{self._log_tail()}"
                )
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
                # Ctrl-C is for the one that started them: it ends them in order.
                start_new_session=True,
                env={**os.environ, **self._environment},
            )
        threading.Thread(target=self._copy_output, args=(self._process, self._lines), daemon=True).start()

    @property
    def has_exited(self) -> bool:
        """Whether it ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def exit_error(self) -> ServiceError:
        """What to tell of a service that ended by itself."""
        code = self._process.wait() if self._process else None
        return ServiceError(f"{self.name} ended with exit code {code}{self._log_tail()}")

    def stop(self) -> None:
        """Ask it to end; kill it where it does not."""
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
        """Read standard output to its end, so that nobody waits for it to be read; an empty line is the end."""
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
        return "".join(f"\n    {line}" for line in lines) + f"\n  (all of it: {self.log})"
