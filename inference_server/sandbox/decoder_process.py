"""The server's side of a decoder process: starting, communicating with timeouts, killing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gorggle_server.sandbox.hardening import SandboxFeatures
from gorggle_server.sandbox.protocol import HEADER, DecodeJob, DecoderError, Header, MessageType
from gorggle_server.sandbox.protocol_validation import parse_header
from gorggle_server.vision.landmark_model import DEFAULT_LANDMARK_MODEL, LandmarkModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gorggle_server.sandbox.fork_client import ForkedProcess

    ChildProcess: TypeAlias = "SpawnedProcess | ForkedProcess"

# -P: do not import from the working directory. -B: do not write .pyc files.
PYTHON = (sys.executable, "-P", "-s", "-B", "-m")
# Variables that Python may need to start; the rest of the server's environment, such as secrets, is not inherited.
INHERITED_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")

# Holds seconds of crops and audio, so that decoding continues while the server is busy.
PIPE_BYTES = 2**20
# Many small messages are read at once.
READ_AHEAD_BYTES = 128 * 2**10
# A spawned process loads Python, FFmpeg and the landmark model in 1 s, under load in a few seconds.
START_TIMEOUT_S = 30.0
# A process that waits for a CPU has not stalled: with far more streams than CPUs it may wait for seconds. When the timeout
# expires, it is extended by this interval if the process was waiting for a CPU for more than this share of it, up to a
# maximum number of extensions.
CPU_CHECK_INTERVAL_S, MIN_STARVED_SHARE, MAX_EXTENSIONS = 0.5, 0.5, 60


class SpawnedProcess:
    """A decoder started with ``subprocess``; it is killed when the thread that started it ends.

    As ``ForkedProcess``: ``write_fd`` and ``read_fd`` are the server's ends of the pipes to and from the process; ``kill`` is
    thread-safe; ``wait`` returns the exit code, or the negative number of the signal that killed the process.
    """

    def __init__(
        self, command: Sequence[str], landmark_model: LandmarkModel = DEFAULT_LANDMARK_MODEL
    ) -> None:
        """Start the process without waiting until it is ready.

        Args:
            command: to which the number of a file descriptor is appended.
            landmark_model: of the face tracking.

        Raises:
            OSError: no process or temporary file can be created.
        """
        with tempfile.TemporaryFile() as spool_file:
            self._process = subprocess.Popen(
                [*command, str(spool_file.fileno()), *landmark_model.to_arguments()],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[spool_file.fileno()],
                env=build_environment(),
                cwd="/",
                start_new_session=True,
            )
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._pipes = self._process.stdin, self._process.stdout
        self.pid = self._process.pid
        self.write_fd, self.read_fd = (pipe.fileno() for pipe in self._pipes)
        self.kill, self.wait = self._process.kill, self._process.wait

    def close(self) -> None:
        """Close the descriptors of the exited process."""
        for pipe in self._pipes:
            pipe.close()


class DecoderTimeoutError(Exception):
    """The process did not read or write within the timeout."""


class DecoderProcess:
    """A child process that decodes one stream and is then killed.

    Only ``kill`` is thread-safe, after which waiting calls raise EOFError. ``close`` must be called last.

    Attributes:
        features: active sandbox features, once the job has started.
    """

    def __init__(self, child: ChildProcess, timeout_s: float) -> None:
        """Wrap a child process, which need not be ready yet."""
        self._child, self._timeout_s = child, timeout_s
        self.pid, self.kill, self.wait = child.pid, child.kill, child.wait
        self.features = SandboxFeatures(0)
        self._deadline, self._extensions = 0.0, 0
        self._buffer = memoryview(bytearray(READ_AHEAD_BYTES))
        self._read_ahead = self._buffer[:0]
        self._to, self._from = child.write_fd, child.read_fd
        for fd in (self._to, self._from):
            os.set_blocking(fd, False)
        # Only on Linux, within the user's limit; otherwise the pipe keeps its default size.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._from, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def start_job(self, job: DecodeJob) -> None:
        """Wait until the process is ready, send the job and wait until the sandbox is active, before media is opened.

        Raises:
            EOFError: the process has exited.
            DecoderTimeoutError: the process hangs.
            DecoderError: the process violates the protocol.
        """
        self.reset_timeout(START_TIMEOUT_S)
        self._expect(MessageType.READY)
        self.send(job.pack())
        self.features = SandboxFeatures(self._expect(MessageType.SANDBOXED).number & sum(SandboxFeatures))

    def _expect(self, kind: MessageType) -> Header:
        header = parse_header(self.receive(HEADER.size))
        if header.kind is not kind:
            raise DecoderError(f"the decoder process sent {header.kind.name} before {kind.name}")
        return header

    def reset_timeout(self, timeout_s: float | None = None) -> None:
        """Restart the timeout, which covers all later calls."""
        self._deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        self._extensions = 0

    def receive(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes."""
        data = bytearray(size)
        self.receive_into(memoryview(data))
        return bytes(data)

    def receive_into(self, buffer: memoryview) -> None:
        """Fill ``buffer``.

        Raises:
            EOFError: the process has exited.
            DecoderTimeoutError: the timeout expired.
        """
        while buffer:
            if self._read_ahead:
                size = min(len(buffer), len(self._read_ahead))
                buffer[:size], self._read_ahead = self._read_ahead[:size], self._read_ahead[size:]
            else:
                size = self._read_into(buffer)
            buffer = buffer[size:]

    def send(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises:
            EOFError: the process has exited.
            DecoderTimeoutError: the timeout expired.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT)
            except BrokenPipeError:
                raise EOFError from None

    def close(self) -> None:
        """Kill the process and release its resources."""
        self._child.kill()
        self._child.wait()
        self._child.close()

    def _read_into(self, room: memoryview) -> int:
        """Read into ``room``, and excess bytes into the read-ahead buffer; return the total number of bytes."""
        while True:
            try:
                size = os.readv(self._from, [room, self._buffer])
            except BlockingIOError:
                self._wait(self._from, select.POLLIN)
                continue
            if not size:
                raise EOFError
            self._read_ahead = self._buffer[: max(0, size - len(room))]
            return size

    def _wait(self, fd: int, event: int) -> None:
        waiting = select.poll()
        waiting.register(fd, event)
        left_s = self._deadline - time.monotonic()
        if left_s > 0 and waiting.poll(left_s * 1000):
            return
        if self._extensions == MAX_EXTENSIONS or not self._is_cpu_starved():
            raise DecoderTimeoutError
        self._extensions += 1
        self._deadline = time.monotonic() + CPU_CHECK_INTERVAL_S

    def _is_cpu_starved(self) -> bool:
        """Observe the process for an interval; return whether it mostly waited for a CPU."""
        before = read_scheduling(self.pid)
        time.sleep(CPU_CHECK_INTERVAL_S)
        after = read_scheduling(self.pid)
        return (
            before is not None and after is not None and is_cpu_starved(before, after, CPU_CHECK_INTERVAL_S)
        )


@dataclass(frozen=True)
class Scheduling:
    """For how many seconds a process has run, and been runnable without a CPU; whether it is running or waits for a CPU now."""

    ran_s: float
    waited_s: float
    is_runnable: bool


def is_cpu_starved(before: Scheduling, after: Scheduling, interval_s: float) -> bool:
    """Return whether a process mostly waited for a CPU between two readings."""
    waited_s = after.waited_s - before.waited_s
    if before.is_runnable and after.is_runnable:
        # The kernel counts a wait when it ends: one that is longer than the interval is not counted yet.
        waited_s = max(waited_s, interval_s - (after.ran_s - before.ran_s))
    return waited_s > MIN_STARVED_SHARE * interval_s


def read_scheduling(pid: int) -> Scheduling | None:
    """Return how the main thread of a process was scheduled; None if unknown.

    Source: Linux, Documentation/scheduler/sched-stats.rst, and proc(5).
    """
    folder = Path(f"/proc/{pid}")
    try:
        ran_ns, waited_ns, *_ = map(int, (folder / "schedstat").read_text("ascii").split())
        # The name of the program, in parentheses, may contain anything.
        state = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    return Scheduling(ran_ns / 1e9, waited_ns / 1e9, state == "R")


def build_environment() -> dict[str, str]:
    """Return a decoder's environment: module path, and limits on threads and arenas to save address space."""
    needed = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    return needed | {
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OPENCV_FOR_THREADS_NUM": "1",
        "MALLOC_ARENA_MAX": "2",
    }
