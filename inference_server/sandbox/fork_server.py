"""``python -m gorggle_server.sandbox.fork_server [NAME [PATH]] FD``: forks decoder processes.

NAME is the landmark model, PATH its file (see ``LandmarkModel``). Python, FFmpeg and the landmark model (dlib's has 100 MB)
are loaded once and shared copy-on-write, so a decoder starts in milliseconds. This process is single-threaded and handles
neither media nor secrets. It receives requests over the socket FD (see ``fork_client``) and exits with the server.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING

from gorggle_server.errors import ModelFormatError, NotFoundError
from gorggle_server.sandbox import decoder_main, hardening
from gorggle_server.sandbox.fork_client import FORK_FAILED, FORKED, NOT_FOUND, NUMBER, PASSED_FDS, READY
from gorggle_server.sandbox.protocol import MAX_TEXT_BYTES
from gorggle_server.vision.landmark_model import LandmarkModel

if TYPE_CHECKING:
    from gorggle_server.sandbox.hardening import SandboxFeatures
    from gorggle_server.vision.face_detector import FaceDetector


def main() -> int:
    """Fork decoders until the server closes the socket."""
    *landmark_model, fd = sys.argv[1:]
    control = socket.socket(fileno=int(fd))
    protection = hardening.isolate_signals_and_network()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server has gone
        try:
            finder = decoder_main.preload(LandmarkModel.from_arguments(landmark_model))
        except (NotFoundError, ModelFormatError) as error:
            control.send(NOT_FOUND + str(error).encode(errors="replace")[:MAX_TEXT_BYTES])
            return 1
        # Garbage collection would write to, and so copy, the pages shared with decoders.
        gc.collect()
        gc.freeze()
        _ForkServer(control, protection, finder).run()
    return 0


class _ForkServer:
    """Forks decoders on request and reports their exit codes."""

    def __init__(self, control: socket.socket, protection: SandboxFeatures, finder: FaceDetector) -> None:
        self._control, self._protection, self._finder = control, protection, finder
        self._pid = os.getpid()
        self._status_fds: dict[int, int] = {}

    def run(self) -> None:
        """Serve requests until the server closes the socket."""
        woken, wakes = os.pipe()
        for fd in (woken, wakes):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        waiting = select.poll()
        for fd in (self._control.fileno(), woken):
            waiting.register(fd, select.POLLIN)
        self._control.send(READY)
        while True:
            ready = {fd for fd, _ in waiting.poll()}
            if woken in ready:
                os.read(woken, 4096)
                self._reap_children()
            if self._control.fileno() in ready:
                request, fds, _, _ = socket.recv_fds(self._control, 1, PASSED_FDS)
                if not request:
                    return
                self._handle_request(fds)

    def _reap_children(self) -> None:
        with contextlib.suppress(ChildProcessError):  # none is left
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                fd = self._status_fds.pop(pid)
                with contextlib.suppress(BrokenPipeError):
                    os.write(fd, NUMBER.pack(os.waitstatus_to_exitcode(status)))
                os.close(fd)

    def _handle_request(self, fds: list[int]) -> None:
        if len(fds) < PASSED_FDS:  # no free descriptors for the others
            for fd in fds:
                os.close(fd)
            self._control.send(FORK_FAILED + NUMBER.pack(errno.EMFILE))
            return
        *carried, status_fd = fds
        pid = 0
        try:
            pid = os.fork()
            if not pid:
                os._exit(self._run_decoder(carried))
            self._status_fds[pid] = status_fd
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            if pid:
                os.kill(pid, signal.SIGKILL)  # the server does not know it; it is reaped with the others
            else:
                os.close(status_fd)
            self._control.send(FORK_FAILED + NUMBER.pack(error.errno or 0))
        else:
            socket.send_fds(self._control, [FORKED + NUMBER.pack(pid)], [pidfd])
            os.close(pidfd)
        finally:
            for fd in carried:
                os.close(fd)

    def _run_decoder(self, carried: list[int]) -> int:
        """Run the decoder in the child process; return its exit code."""
        try:
            media_fd, results_fd, spool_fd = carried
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(media_fd, 0)
            os.dup2(2, 1)
            _close_fds_except({0, 1, 2, results_fd, spool_fd})
            protection = self._protection | hardening.drop_privileges()
            if os.getppid() != self._pid:
                return 1  # the fork server exited before PDEATHSIG was set
            return decoder_main.serve(0, results_fd, os.fdopen(spool_fd, "w+b"), protection, self._finder)
        except BaseException:  # the child must not return into the fork server's code
            traceback.print_exc()
            return 1


def _close_fds_except(kept: set[int]) -> None:
    first = 0
    for fd in sorted(kept):
        if fd > first:  # Linux would close all descriptors for an empty range
            os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


if __name__ == "__main__":
    sys.exit(main())
