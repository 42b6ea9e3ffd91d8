"""One decoder process as the server sees it: it has nothing of the server's, and is spoken to with a clock running."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gorggle_server.sandbox.hardening import SandboxFeatures
from gorggle_server.sandbox.protocol import HEADER, DecodeJob, DecoderError, Header, MessageType
from gorggle_server.sandbox.protocol_validation import parse_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# -P: a folder that happens to bear the module's name must not be run because one stands beside it. -B: no file is
# written, nor that of a compiled module.
PYTHON = (sys.executable, "-P", "-s", "-B", "-m")
# What Python itself may need to start; nothing else of the server's environment is passed on, secrets least of all.
INHERITED_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")

# Seconds of crops and sound fit in: the next ones are decoded while the server does something else.
PIPE_BYTES = 2**20
# Small messages are read many at a time.
READ_AHEAD_BYTES = 128 * 2**10
# Where it is not forked it loads Python, FFmpeg and the landmark model, in a second; on a machine under load in a few.
START_TIMEOUT_S = 30.0
# A process that has work, but no processor to do it on, has not stalled: on a machine with far more streams than processors
# it may wait for seconds. It is told by looking for so long: it waited for most of that, and is looked at so often at most.
CPU_CHECK_INTERVAL_S, MIN_STARVED_SHARE, MAX_EXTENSIONS = 0.5, 0.5, 60


class ChildProcess(Protocol):
    """A process, and the server's ends of the two pipes to and from it."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def write_fd(self) -> int:
        """The pipe to it."""
        ...

    @property
    def read_fd(self) -> int:
        """The pipe from it."""
        ...

    def kill(self) -> None:
        """End it at once; from any thread."""
        ...

    def wait(self) -> int:
        """How it ended, waiting for that; negative: the signal that ended it."""
        ...

    def close(self) -> None:
        """Let go of what it held here; it has ended."""
        ...


class SpawnedProcess:
    """A decoder that was started by itself, and ends with the thread that started it."""

    def __init__(self, command: Sequence[str], landmark_model: Path | None = None) -> None:
        """Start it; it makes itself ready meanwhile.

        Args:
            command: what is run, followed by the number of a file descriptor.
            landmark_model: another than the usual one.

        Raises:
            OSError: no process, or no temporary file, can be had.
        """
        with tempfile.TemporaryFile() as spool_file:
            named = [] if landmark_model is None else [str(landmark_model)]
            self._process = subprocess.Popen(
                [*command, str(spool_file.fileno()), *named],
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
        """Let go of what it held here; it has ended."""
        for pipe in self._pipes:
            pipe.close()


class DecoderTimeoutError(Exception):
    """The process neither took nor gave anything in time."""


class DecoderProcess:
    """A child that decodes one stream and is then killed.

    ``kill`` may be called from any thread. The rest is for one thread; ``close`` must come last.

    Attributes:
        protection: what it has shut itself in with, once it has begun.
    """

    def __init__(self, child: ChildProcess, timeout_s: float = 20.0) -> None:
        """Take charge of it while it makes itself ready."""
        self._child, self._timeout_s = child, timeout_s
        self.features = SandboxFeatures(0)
        self._deadline, self._extensions = 0.0, 0
        self._buffer = memoryview(bytearray(READ_AHEAD_BYTES))
        self._read_ahead = self._buffer[:0]
        self._to, self._from = child.write_fd, child.read_fd
        for fd in (self._to, self._from):
            os.set_blocking(fd, False)
        # Linux; elsewhere, and where the user has too many, the pipe stays as small as it is.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._from, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def start_job(self, job: DecodeJob) -> None:
        """Give it its one order as soon as it is ready, and wait until it has shut itself in: it opens the media next.

        Raises:
            EOFError: it died.
            DecoderTimeoutError: it hangs.
            DecoderError: it is no decoder.
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
        """From now on it has ``timeout_s`` again, for all that it is waited for."""
        self._deadline, self._extensions = (
            time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s),
            0,
        )

    def receive(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        data = bytearray(size)
        self.receive_into(memoryview(data))
        return bytes(data)

    def receive_into(self, buffer: memoryview) -> None:
        """Fill ``buffer``.

        Raises:
            EOFError: it has ended.
            DecoderTimeoutError: the clock ran out.
        """
        while buffer:
            if self._read_ahead:
                size = min(len(buffer), len(self._read_ahead))
                buffer[:size], self._read_ahead = self._read_ahead[:size], self._read_ahead[size:]
            else:
                size = self._read_into(buffer)
            buffer = buffer[size:]

    def send(self, data: bytes) -> None:
        """Hand over ``data``.

        Raises:
            EOFError: it has ended.
            DecoderTimeoutError: the clock ran out.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT)
            except BrokenPipeError:
                raise EOFError from None

    def kill(self) -> None:
        """End it at once, from any thread; whoever waits for it gets EOFError."""
        self._child.kill()

    def wait(self) -> int:
        """How it ended, waiting for that; negative: the signal that ended it."""
        return self._child.wait()

    def close(self) -> None:
        """End it, and let go of all that it held in this process."""
        self._child.kill()
        self._child.wait()
        self._child.close()

    def _read_into(self, room: memoryview) -> int:
        """Read into ``buffer``, and into the buffer what comes behind it; how much came in all."""
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
        """Look at it for a moment: whether it waits for a processor for most of that."""
        queued_s = _read_cpu_wait_s(self.pid)
        time.sleep(CPU_CHECK_INTERVAL_S)
        return _read_cpu_wait_s(self.pid) - queued_s > MIN_STARVED_SHARE * CPU_CHECK_INTERVAL_S


def _read_cpu_wait_s(pid: int) -> float:
    """For how many seconds a process was ready to run and had no processor; 0 where the system does not tell.

    Source: Linux, Documentation/scheduler/sched-stats.rst.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def build_environment(server: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a decoder needs of an environment: where the modules are, and threads and arenas that cost address space."""
    needed = {name: server[name] for name in INHERITED_VARIABLES if name in server}
    return needed | {
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OPENCV_FOR_THREADS_NUM": "1",
        "MALLOC_ARENA_MAX": "2",
    }
