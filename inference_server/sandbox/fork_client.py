"""Decoders forked from a process that has loaded everything: the server's side of ``fork_server``.

A request is a message that carries the descriptors of a decoder's media, its results, its spooled file, and of a pipe into
which goes, when it has ended, how. The answer carries a descriptor of the process (pidfd), by which it is killed, and never
another that happens to have got its number.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING

from gorggle_server.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Behind the answer's letter: the new process's id, the error's number, or a text.
READY, FORKED, FORK_FAILED, NOT_FOUND = b"R", b"B", b"U", b"N"
NUMBER = struct.Struct("<i")
MAX_TEXT_BYTES = 2000
# Media, results, spooled file, status.
PASSED_FDS = 4

# The slowest that loading everything may be, on a machine under load; and how long a process that was killed may be buried.
RESPONSE_TIMEOUT_S, REAP_TIMEOUT_S = 60.0, 30.0


class ForkServerExitedError(OSError):
    """The process that decoders are forked from has died, or does not keep to its part."""


class ForkServer:
    """The process that decoders are forked from, as the server sees it. For one thread but ``kill``."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; it makes itself ready meanwhile, and ends with the thread that started it.

        Args:
            command: what is run, followed by the number of a socket's descriptor.
            environment: of the process and of all that are forked from it.

        Raises:
            OSError: no process can be had.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                )
            except BaseException:
                self._socket.close()
                raise
        self._socket.settimeout(RESPONSE_TIMEOUT_S)
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fork(self) -> ForkedProcess:
        """A new decoder.

        Raises:
            NotFoundError: there is no landmark model.
            ForkServerExitedError: it has died, or hangs.
            OSError: no process can be had, or no pipes for it.
        """
        if not self._is_ready:
            self._expect(READY, self._receive()[0])
            self._is_ready = True
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            media, to_media = _create_pipe(theirs, ours)
            results, to_results = _create_pipe(ours, theirs)
            status, to_status = _create_pipe(ours, theirs)
            spool_file = theirs.enter_context(tempfile.TemporaryFile())
            try:
                socket.send_fds(self._socket, [FORKED], [media, to_results, spool_file.fileno(), to_status])
            except (BrokenPipeError, TimeoutError):
                raise self._exited_error() from None
            answer, fds = self._receive()
            self._expect(FORKED, answer)
            if not fds:  # there was no room for it: the process ends when its pipes are closed
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            ours.pop_all()
        (pid,), (pidfd,) = NUMBER.unpack(answer[1:]), fds
        return ForkedProcess(pid, pidfd, to_media, results, status)

    def kill(self) -> None:
        """End it, and with it all that were forked from it; from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End it, and let go of what it held here."""
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            answer, fds, _, _ = socket.recv_fds(self._socket, 1 + MAX_TEXT_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except (ConnectionResetError, TimeoutError):
            raise self._exited_error() from None
        if not answer:
            raise self._exited_error()
        return answer, fds

    def _exited_error(self) -> ForkServerExitedError:
        self._process.kill()  # in case that it only hangs
        code = self._process.wait()
        return ForkServerExitedError(
            errno.EPIPE, f"the process that decoders are forked from ended with exit code {code}"
        )

    def _expect(self, kind: bytes, answer: bytes) -> None:
        letter, rest = answer[:1], answer[1:]
        if letter == FORK_FAILED:
            (number,) = NUMBER.unpack(rest)
            raise OSError(number, os.strerror(number))
        if letter == NOT_FOUND:
            raise NotFoundError(rest.decode(errors="replace"))
        if letter != kind:
            raise self._exited_error()


class ForkedProcess:
    """A forked decoder. ``kill`` may be called from any thread.

    Attributes:
        pid: its process id.
        write_fd, read_fd: the ends of its two pipes.
    """

    def __init__(self, pid: int, pidfd: int, write_fd: int, read_fd: int, status_fd: int) -> None:
        self.pid, self.write_fd, self.read_fd = pid, write_fd, read_fd
        self._pidfd, self._status_fd = pidfd, status_fd
        self._status: int | None = None
        self._lock, self._is_closed = threading.Lock(), False

    def kill(self) -> None:
        """End it at once."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if not self._is_closed:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> int:
        """How it ended, waiting for that; negative: the signal that ended it."""
        if self._status is None:
            burial = select.poll()
            burial.register(self._status_fd, select.POLLIN)
            data = os.read(self._status_fd, NUMBER.size) if burial.poll(REAP_TIMEOUT_S * 1000) else b""
            # Without a word its parent has been killed, and it with that.
            self._status = NUMBER.unpack(data)[0] if len(data) == NUMBER.size else -signal.SIGKILL
        return self._status

    def close(self) -> None:
        """Let go of what it held here; it has ended."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                for fd in (self._pidfd, self.write_fd, self.read_fd, self._status_fd):
                    os.close(fd)


def _create_pipe(reading: contextlib.ExitStack, writing: contextlib.ExitStack) -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    reading.callback(os.close, read_fd)
    writing.callback(os.close, write_fd)
    return read_fd, write_fd


def can_fork() -> bool:
    """Whether decoders can be forked here: it needs Linux 5.3, and rights that some containers do not give."""
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        return False
    try:
        fd = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(fd, 0)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True
