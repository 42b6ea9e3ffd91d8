"""Pool of decoder processes: a new process for every stream, with spare processes started in advance."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

from gorggle_server.errors import NotFoundError, NotReadyError
from gorggle_server.recognition_options import DECODER_MEMORY_BYTES, DECODER_TIMEOUT_S
from gorggle_server.sandbox.decoder_process import (
    PYTHON,
    DecoderProcess,
    DecoderTimeoutError,
    SpawnedProcess,
    build_environment,
)
from gorggle_server.sandbox.fork_client import ForkServer, ForkServerExitedError, can_fork
from gorggle_server.sandbox.protocol import DecodeJob, DecoderError
from gorggle_server.vision.landmark_model import DEFAULT_LANDMARK_MODEL, LandmarkModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gorggle_server.sandbox.decoder_process import ChildProcess

DECODER = (*PYTHON, "gorggle_server.sandbox.decoder_main")
FORK_SERVER = (*PYTHON, "gorggle_server.sandbox.fork_server")

# A stream is retried if its process was killed before the job started.
MAX_ATTEMPTS = 3


class DecoderPool:
    """Starts and kills decoder processes.

    Attributes:
        memory_bytes: address space of one process.
        timeout_s: maximum time without progress while a process has data.
        is_closed: whether the pool has been closed.
    """

    def __init__(
        self,
        memory_bytes: int = DECODER_MEMORY_BYTES,
        timeout_s: float = DECODER_TIMEOUT_S,
        spares: int = 1,
        landmark_model: LandmarkModel = DEFAULT_LANDMARK_MODEL,
        command: Sequence[str] | None = None,
    ) -> None:
        """Create the pool; processes are started on the first ``acquire``.

        Args:
            memory_bytes: address space of one process.
            timeout_s: maximum time without progress.
            spares: number of spare processes.
            landmark_model: of the face tracking.
            command: to run for each process, with the number of a file descriptor appended; None: use a fork server if
                the system supports it.
        """
        self.memory_bytes, self.timeout_s = memory_bytes, timeout_s
        self._spares = spares
        self._landmark_model = landmark_model
        self._command = DECODER if command is None and not can_fork() else command
        self._fork_server: ForkServer | None = None
        self._ready: deque[DecoderProcess | Exception] = deque()
        self._running: set[DecoderProcess] = set()
        self._waiters = 0
        self._changed = threading.Condition()
        self._starter: threading.Thread | None = None
        self.is_closed = self._spares_reaped = False

    @contextlib.contextmanager
    def acquire(self, job: DecodeJob) -> Iterator[DecoderProcess]:
        """Yield a process that has started the job; it is killed when the context exits.

        Raises:
            DecoderError: no process can be started.
            NotFoundError: the landmark model does not exist.
            NotReadyError: the pool is closed.
        """
        process = self._start_job(job)
        try:
            yield process
        finally:
            self._discard(process)

    def close(self) -> None:
        """Kill all processes, including running ones."""
        with self._changed:
            self.is_closed = True
            for process in self._running:
                process.kill()
            spares, self._ready = list(self._ready), deque()
            self._changed.notify_all()
            starter = self._starter
        for spare in spares:
            if isinstance(spare, DecoderProcess):
                spare.close()
        with self._changed:
            # After its children, which it reaps. It may still be starting.
            self._spares_reaped = True
            self._changed.notify_all()
            if self._fork_server is not None:
                self._fork_server.kill()
        if starter is not None:
            starter.join()

    def _start_job(self, job: DecodeJob) -> DecoderProcess:
        failures = []
        for _ in range(MAX_ATTEMPTS):
            process = self._take_process()
            try:
                process.start_job(job)
            except (EOFError, DecoderTimeoutError, DecoderError) as failure:
                process.kill()
                failures.append(f"{type(failure).__name__}, exit code {process.wait()}")
                self._discard(process)
            except BaseException:
                self._discard(process)
                raise
            else:
                return process
        if self.is_closed:
            raise NotReadyError("the server is shutting down: send the request to another one")
        raise DecoderError(f"the decoder process exited during startup ({'; '.join(failures)})")

    def _take_process(self) -> DecoderProcess:
        with self._changed:
            if self._starter is None:
                self._starter = threading.Thread(target=self._start_processes, name="decoders", daemon=True)
                self._starter.start()
            self._waiters += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ready or self.is_closed)
            self._waiters -= 1
            if self.is_closed:
                raise NotReadyError("the server is shutting down: send the request to another one")
            process = self._ready.popleft()
            self._changed.notify_all()
            if isinstance(process, NotFoundError):
                raise process
            if isinstance(process, Exception):
                raise DecoderError(f"no decoder process could be started: {process}") from process
            self._running.add(process)
            return process

    def _discard(self, process: DecoderProcess) -> None:
        process.close()
        with self._changed:
            self._running.discard(process)

    def _start_processes(self) -> None:
        """Keep enough processes ready, on a thread that lives as long as the pool.

        Linux kills the processes (PDEATHSIG) when the thread that started them ends.
        """
        while self._wait_for_demand():
            started = self._start_process()
            with self._changed:
                if not self.is_closed:
                    self._ready.append(started)
                    self._changed.notify_all()
                    continue
            if isinstance(started, DecoderProcess):
                started.close()
        with self._changed:
            self._changed.wait_for(lambda: self._spares_reaped)
        self._drop_fork_server()

    def _wait_for_demand(self) -> bool:
        """Wait until a process is needed; return False if the pool is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed or len(self._ready) < self._spares + self._waiters)
            return not self.is_closed

    def _start_process(self) -> DecoderProcess | Exception:
        try:
            return DecoderProcess(self._start_child(), self.timeout_s)
        except Exception as error:  # reported to the waiting stream
            return error

    def _start_child(self) -> ChildProcess:
        if self._command is not None:
            return SpawnedProcess(self._command, self._landmark_model)
        try:
            return self._fork_child()
        except ForkServerExitedError:
            self._drop_fork_server()
            if self.is_closed:
                raise
            return self._fork_child()  # from a new fork server

    def _fork_child(self) -> ChildProcess:
        if self._fork_server is None:
            command = [*FORK_SERVER, *self._landmark_model.to_arguments()]
            fork_server = ForkServer(command, build_environment())
            with self._changed:
                self._fork_server = fork_server
                if self.is_closed:
                    fork_server.kill()
        return self._fork_server.fork()

    def _drop_fork_server(self) -> None:
        with self._changed:
            fork_server, self._fork_server = self._fork_server, None
        if fork_server is not None:
            fork_server.close()
