"""Client of ``fork_server``: forks decoders from a process that has loaded everything.

A request carries the descriptors of the decoder's media, results, spool file and status pipe, which receives its exit
code. The response carries a pidfd, so that a kill cannot hit another process that reuses the process id.
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
from gorggle_server.sandbox.protocol import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Type of a response; it is followed by the process id, an errno or a message.
READY, FORKED, FORK_FAILED, NOT_FOUND = b"R", b"B", b"U", b"N"
NUMBER = struct.Struct("<i")
# Media, results, spool file, status.
PASSED_FDS = 4

# Timeouts for loading everything on a machine under load, and for reaping a killed process.
RESPONSE_TIMEOUT_S, REAP_TIMEOUT_S = 60.0, 30.0


class ForkServerExitedError(OSError):
    """The fork server has exited, hangs or violates the protocol."""


class ForkServer:
    """Client of the process that decoders are forked from. Only ``kill`` is thread-safe."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the fork server without waiting until it is ready; it is killed when the starting thread ends.

        Args:
            command: to which the number of a socket descriptor is appended.
            environment: of the fork server and the decoders.

        Raises:
            OSError: no process can be created.
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
        self.pid = self._process.pid
        self._socket.settimeout(RESPONSE_TIMEOUT_S)
        self._is_ready = False

    def fork(self) -> ForkedProcess:
        """Fork a decoder.

        Raises:
            NotFoundError: the landmark model does not exist or is damaged.
            ForkServerExitedError: the fork server has exited or hangs.
            OSError: no process or pipe can be created.
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
            if not fds:  # no free descriptor for the pidfd; the decoder exits when its pipes are closed
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            ours.pop_all()
        (pid,), (pidfd,) = NUMBER.unpack(answer[1:]), fds
        return ForkedProcess(pid, pidfd, to_media, results, status)

    def kill(self) -> None:
        """Kill the fork server and all its decoders; thread-safe."""
        self._process.kill()

    def close(self) -> None:
        """Kill the fork server and release its resources."""
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
        self._process.kill()  # in case it hangs
        code = self._process.wait()
        return ForkServerExitedError(errno.EPIPE, f"the decoder fork server exited with code {code}")

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
    """A forked decoder; see ``SpawnedProcess``."""

    def __init__(self, pid: int, pidfd: int, write_fd: int, read_fd: int, status_fd: int) -> None:
        self.pid, self.write_fd, self.read_fd = pid, write_fd, read_fd
        self._pidfd, self._status_fd = pidfd, status_fd
        self._status: int | None = None
        self._lock, self._is_closed = threading.Lock(), False

    def kill(self) -> None:
        """Kill the process; thread-safe."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if not self._is_closed:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the process to exit; see ``SpawnedProcess``."""
        if self._status is None:
            burial = select.poll()
            burial.register(self._status_fd, select.POLLIN)
            data = os.read(self._status_fd, NUMBER.size) if burial.poll(REAP_TIMEOUT_S * 1000) else b""
            # Without a status the fork server was killed, and the decoder with it.
            self._status = NUMBER.unpack(data)[0] if len(data) == NUMBER.size else -signal.SIGKILL
        return self._status

    def close(self) -> None:
        """Close the descriptors of the exited process."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                for fd in (self._pidfd, self.write_fd, self.read_fd, self._status_fd):
                    os.close(fd)


def _create_pipe(read_stack: contextlib.ExitStack, write_stack: contextlib.ExitStack) -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    read_stack.callback(os.close, read_fd)
    write_stack.callback(os.close, write_fd)
    return read_fd, write_fd


def can_fork() -> bool:
    """Return whether decoders can be forked: needs Linux 5.3 and permissions that some containers lack."""
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
