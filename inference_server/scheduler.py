"""The device's one thread: takes windows from all streams, reads them in batches.

What crosses this seam is a window of crops and features, never a stream, so that a pool of devices can stand in its
place (``InferenceBackend``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from inference_server.errors import NotFoundError, NotReadyError
from inference_server.recognizer import Recognizer, SearchOptions, Window
from inference_server.transcript import Reading

_log = logging.getLogger(__name__)

GATHERING_WINDOW_S = 0.01
# Frames of a padded batch: four utterances of the longest kind.
MAX_BATCH_FRAMES = 2000


class InferenceBackend(Protocol):
    """Reads windows somewhere: on this process's device, or in a pool."""

    def submit(
        self, model: str, window: Window, search: SearchOptions, *, interim: bool = False
    ) -> Future[list[Reading]]:
        """Queue a window; interim work yields to final work. Cancelling the future gives its place back."""
        ...


class SchedulerObserver(Protocol):
    """Is told what the scheduler does; called on its thread, so it must not linger."""

    def waiting(self, windows: int) -> None:
        """So many windows wait for the device."""
        ...

    def waited(self, seconds: float, *, interim: bool) -> None:
        """A window's turn has come."""
        ...

    def batch_read(self, windows: int, seconds: float) -> None:
        """The device has read windows together."""
        ...


@dataclass(eq=False)
class _Job:
    model: str
    window: Window
    search: SearchOptions
    interim: bool
    future: Future[list[Reading]] = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.monotonic)

    def batches_with(self, other: _Job) -> bool:
        return (self.model, self.search, self.window.modality) == (
            other.model,
            other.search,
            other.window.modality,
        )


class DeviceScheduler:
    """Runs recognizers on one thread; windows that wait together and are alike are read together."""

    def __init__(
        self, recognizers: Mapping[str, Recognizer], observer: SchedulerObserver | None = None
    ) -> None:
        self._recognizers, self._observer = recognizers, observer
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def submit(
        self, model: str, window: Window, search: SearchOptions, *, interim: bool = False
    ) -> Future[list[Reading]]:
        """Queue a window; see ``InferenceBackend``."""
        if model not in self._recognizers:
            raise NotFoundError(f"there is no model {model!r}; there are: {', '.join(self._recognizers)}")
        job = _Job(model, window, search, interim)
        with self._changed:
            if self._closed:
                raise NotReadyError("the server is shutting down: send the request to another one")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Finish the batch at hand, cancel what waits, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                running = [job for job in batch if job.future.set_running_or_notify_cancel()]
                if running:
                    began = time.monotonic()
                    self._read(running)
                    self._tell_of(running, began)
        finally:
            # Whatever ends this thread, nobody may wait for it in vain.
            with self._changed:
                self._closed = True
                for job in self._jobs:
                    job.future.cancel()
                self._jobs.clear()

    def _next_batch(self) -> list[_Job] | None:
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
        time.sleep(GATHERING_WINDOW_S)
        with self._changed:
            return self._take_batch()

    def _take_batch(self) -> list[_Job]:
        """Take the oldest final job, or else the oldest interim one, and what may be read along with it."""
        if not self._jobs:
            return []
        first = next((job for job in self._jobs if not job.interim), self._jobs[0])
        batch, longest = [first], first.window.frames
        for job in self._jobs:
            longest_with = max(longest, job.window.frames)
            if (
                job is first
                or not job.batches_with(first)
                or longest_with * (len(batch) + 1) > MAX_BATCH_FRAMES
            ):
                continue
            batch.append(job)
            longest = longest_with
        for job in batch:
            self._jobs.remove(job)
        return batch

    def _tell_of(self, jobs: list[_Job], began: float) -> None:
        if self._observer is None:
            return
        self._observer.waiting(len(self._jobs))
        for job in jobs:
            self._observer.waited(began - job.submitted_at, interim=job.interim)
        self._observer.batch_read(len(jobs), time.monotonic() - began)

    def _read(self, jobs: list[_Job]) -> None:
        recognizer, search = self._recognizers[jobs[0].model], jobs[0].search
        try:
            readings = recognizer.read([job.window for job in jobs], search)
        except (
            Exception
        ) as error:  # the border to the device: the error belongs to the callers, not to this thread
            _log.exception("reading a batch of %d windows failed", len(jobs))
            for job in jobs:
                job.future.set_exception(error)
            return
        for job, found in zip(jobs, readings, strict=True):
            job.future.set_result(found)
