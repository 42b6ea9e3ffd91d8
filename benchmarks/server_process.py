"""A real server in a subprocess, and its resource usage, for benchmarks and fault tests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_TIMEOUT_S = 60.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ResourceUsage:
    """Resource usage of a server and its subprocesses.

    Attributes:
        rss_bytes: memory of the server process, including file-backed pages.
        private_bytes: anonymous memory of the server process; only this can leak.
        children_rss_bytes: memory of its decoder subprocesses, shared pages counted in each.
        tasks: asyncio tasks of the server's event loop.
    """

    rss_bytes: int
    private_bytes: int
    children_rss_bytes: int
    children: int
    threads: int
    open_files: int
    tasks: int

    def growth_since(self, before: ResourceUsage) -> dict[str, int]:
        """Return the growth of everything that a finished call must not leave behind."""
        kinds = ("open_files", "threads", "tasks", "children")
        return {kind: getattr(self, kind) - getattr(before, kind) for kind in kinds}


class ServerProcess:
    """``gorggle serve`` on a free port as a context manager; must exit with code 0 at the end.

    Attributes:
        address: gRPC address.
        log_path: the server's log.
    """

    def __init__(
        self,
        *arguments: str,
        program: Sequence[str] = ("-m", "gorggle_server"),
        log_level: str = "INFO",
        environment: dict[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gorggle-server-")
        self.log_path = Path(self._folder.name) / "log"
        self._command = [
            sys.executable,
            *program,
            *("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-level", log_level),
            *("--print-ready", "--exit-on-stdin-eof", "--shutdown-grace-period-s", "2", *arguments),
        ]
        self._environment = {**os.environ, **(environment or {})}
        self.address = self.http_address = ""

    def __enter__(self) -> Self:
        with self.log_path.open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._process.kill()
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ):
        code = self._stop()
        if kind is None and code != 0:
            raise AssertionError(f"the server exited with code {code}: {self.log[-3000:]}")
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Return whether the process is running."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """Return the log so far."""
        return self.log_path.read_text(errors="replace")

    @property
    def children(self) -> list[int]:
        """Return the ids of all descendant processes."""
        return _descendants(self.pid)

    def usage(self) -> ResourceUsage:
        """Return the current resource usage."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
        )
        children = self.children
        return ResourceUsage(
            rss_bytes=_rss_bytes(self.pid),
            private_bytes=int(status["RssAnon"].split()[0]) * 1024,
            children_rss_bytes=sum(map(_rss_bytes, children)),
            children=len(children),
            threads=int(status["Threads"]),
            open_files=len(list(Path(f"/proc/{self.pid}/fd").iterdir())),
            tasks=int(self.metrics().get("gorggle_event_loop_tasks", 0)),
        )

    def metrics(self) -> dict[str, float]:
        """Return the Prometheus metrics, by name with labels."""
        with urllib.request.urlopen(f"http://{self.http_address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def wait_until_idle(self, timeout_s: float) -> None:
        """Wait until all streams have ended.

        Raises:
            AssertionError: streams are left after the timeout.
        """
        deadline = time.monotonic() + timeout_s
        while self.is_running and self.metrics()["gorggle_active_streams"]:
            if time.monotonic() > deadline:
                raise AssertionError("streams are left after their clients have disconnected")
            time.sleep(0.1)

    def _wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            announcement = json.loads(line)
            if "listening" in announcement:
                self.address, self.http_address = announcement["listening"], announcement["operations"]
                return
        raise AssertionError(f"the server did not start: {self.log[-3000:]}")

    def _stop(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        return code


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0
