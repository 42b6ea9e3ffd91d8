"""The device's one thread: takes windows from all streams, reads them in batches.

What crosses this seam is a window of crops and features, never a stream, so that a pool of devices can stand in its
place (``InferenceBackend``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from gorggle_server.errors import DeadlineError, GorggleError, NotFoundError, NotReadyError
from gorggle_server.inference.batch_runner import BatchRunner, Outcome
from gorggle_server.inference.recognizer import DecodingOptions, InferenceInput, Recognizer
from gorggle_server.inference.request_queue import FairQueue, InferenceRequest
from gorggle_server.types import Hypothesis


class InferenceBackend(Protocol):
    """Reads windows somewhere: on this process's device, or in a pool.

    What it must hold to stands as tests in ``tests/server/backend_conformance.py``.
    """

    def submit(
        self,
        model: str,
        window: InferenceInput,
        options: DecodingOptions,
        *,
        interim: bool = False,
        stream: Hashable = None,
        utterance: Hashable = None,
        deadline: float | None = None,
    ) -> Future[list[Hypothesis]]:
        """Queue a window. Cancelling the future gives its place back, also in the middle of its reading.

        Args:
            model: one of those served.
            window: what to read.
            options: how to search.
            interim: it yields to final work.
            stream: whose it is: streams share the device evenly.
            utterance: what it is a reading of, unique in its stream: interim readings of the same utterance that are
                not done yet are cancelled.
            deadline: of ``time.monotonic``; from then on nobody wants the readings.

        Returns:
            The window's readings, best first. The future fails with ``DeadlineError`` when it is too late, with
            ``ModelFormatError`` where the model's numbers are not finite, and with whatever the device raised.

        Raises:
            NotFoundError: there is no such model.
            NotReadyError: nothing is read any more.
        """
        ...


class StreamScopedBackend:
    """A backend as one stream sees it: all it submits is known as that stream's."""

    def __init__(self, backend: InferenceBackend, stream: Hashable) -> None:
        self._backend, self._stream = backend, stream

    def submit(
        self,
        model: str,
        window: InferenceInput,
        options: DecodingOptions,
        *,
        interim: bool = False,
        stream: Hashable = None,
        utterance: Hashable = None,
        deadline: float | None = None,
    ) -> Future[list[Hypothesis]]:
        """Queue a window; see ``InferenceBackend``. ``stream`` tells parts of the stream apart, if given."""
        whose = self._stream if stream is None else (self._stream, stream)
        return self._backend.submit(
            model, window, options, interim=interim, stream=whose, utterance=utterance, deadline=deadline
        )


class SchedulerObserver(Protocol):
    """Is told what the scheduler does; called on its thread, so it must not linger."""

    def set_queue_depth(self, windows: int) -> None:
        """So many windows wait for the device."""
        ...

    def observe_queue_wait(self, seconds: float, *, interim: bool) -> None:
        """A window's turn has come."""
        ...

    def observe_encode(self, windows: int, seconds: float) -> None:
        """The device has encoded windows together."""
        ...

    def observe_decode_step(self, windows: int, seconds: float) -> None:
        """The device has searched windows one unit further."""
        ...

    def count_drop(self, cause: str) -> None:
        """A window was given up: ``cancelled`` (or superseded), ``late`` or ``failed``."""
        ...

    def observe_result(self, frames: int, seconds: float, *, stream: Hashable) -> None:
        """A window was read, which took the device so long: its share of the batches it was part of."""
        ...


@dataclass(frozen=True)
class BatchingConfig:
    """How windows are put together.

    Attributes:
        max_batch_delay_s: how long a window waits for others before it is encoded. Searches that are going on go on.
        max_frames: of one padded batch, its windows times the longest of them; 2000 are four utterances of 20 s.
    """

    max_batch_delay_s: float = 0.01
    max_frames: int = 2000


class DeviceScheduler:
    """Runs recognizers on one thread; windows that wait together and are alike are read together."""

    def __init__(
        self,
        recognizers: Mapping[str, Recognizer],
        observer: SchedulerObserver | None = None,
        options: BatchingConfig = BatchingConfig(),
        on_device_time: Callable[[Hashable, float], None] = lambda _stream, _device_s: None,
        is_device_healthy: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin to read.

        Args:
            recognizers: the models by name.
            observer: is told what is done.
            options: how windows are put together.
            on_device_time: is told how many seconds each window took the device, its share of the batches it was part of,
                whether or not it came to its end; and whose it was. Called on the device's thread.
            is_device_healthy: whether the device still calculates; asked where a reading has failed.
        """
        self._on_device_time, self._is_device_healthy = on_device_time, is_device_healthy
        self._recognizers, self._observer, self._options = recognizers, observer, options
        self._queue = FairQueue()
        self._batches = BatchRunner(recognizers, options.max_frames, self._complete)
        self._unfinished: set[InferenceRequest] = set()  # waiting or being read
        self._device_s: dict[InferenceRequest, float] = {}  # what each that is being read has taken so far
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def submit(
        self,
        model: str,
        window: InferenceInput,
        options: DecodingOptions,
        *,
        interim: bool = False,
        stream: Hashable = None,
        utterance: Hashable = None,
        deadline: float | None = None,
    ) -> Future[list[Hypothesis]]:
        """Queue a window; see ``InferenceBackend``."""
        if model not in self._recognizers:
            raise NotFoundError(f"there is no model {model!r}; there are: {', '.join(self._recognizers)}")
        job = InferenceRequest(model, window, options, interim, stream, utterance, deadline)
        with self._condition:
            if self._closed:
                raise NotReadyError("the server is shutting down: send the request to another one")
            superseded = [other for other in self._unfinished if other.is_superseded_by(stream, utterance)]
            self._unfinished.add(job)
            self._queue.put(job)
            self._condition.notify()
        # Outside the lock: whoever waits for them is told on this thread.
        for other in superseded:
            other.future.cancel()
        return job.future

    def close(self) -> None:
        """Finish what is being read, cancel what waits, end the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    # -------------------------------------------------------------------------------------------- the device's thread

    def _run(self) -> None:
        try:
            while self._has_work():
                self._drop_cancelled_and_expired()
                if batch := self._next_batch():
                    self._start_batch(batch)
                self._step()
        finally:
            # Whatever ends this thread, nobody may wait for it in vain.
            with self._condition:
                self._closed = True
                left, self._unfinished = self._unfinished, set()
            for job in left:
                job.future.cancel()

    def _has_work(self) -> bool:
        """Wait for work; false when there will be none. After ``close`` only what is being read is work."""
        with self._condition:
            while not self._batches.requests:
                if self._closed:
                    return False
                if not self._queue:
                    self._condition.wait()
                    continue
                # A batch that is full, or an end, need not be waited for.
                if (pause := self._get_batch_delay_s()) <= 0:
                    return True
                self._condition.wait(pause)
            return True

    def _get_batch_delay_s(self) -> float:
        """Seconds until the window whose turn is next has waited for others long enough."""
        first = next(self._queue.iterate_in_order())
        companions = self._collect_batch(first)
        if len(companions) < len(self._queue) and not self._batches.has_capacity(first, companions):
            return 0.0
        return first.submitted_at + self._options.max_batch_delay_s - time.monotonic()

    def _drop_cancelled_and_expired(self) -> None:
        """Let go of jobs that were cancelled or are too late."""
        now = time.monotonic()
        for job in [job for job in self._snapshot() if job.deadline is not None and job.deadline <= now]:
            late_s = now - job.submitted_at
            error = DeadlineError(f"the device did not come to it within {late_s:.1f} s: send less at once")
            if _try_claim(job):
                job.future.set_exception(error)
                self._count_drop("late")
        reading = set(self._batches.requests)
        unwanted = [job for job in self._snapshot() if job.future.done()]
        with self._condition:
            for job in unwanted:
                self._unfinished.discard(job)
                if job not in reading:
                    self._queue.remove(job)
        self._batches.remove(job for job in unwanted if job in reading)
        for job in unwanted:
            self._report_device_time(job)
            if job.future.cancelled():
                job.future.set_running_or_notify_cancel()
                self._count_drop("cancelled")

    def _snapshot(self) -> list[InferenceRequest]:
        with self._condition:
            return list(self._unfinished)

    def _next_batch(self) -> list[InferenceRequest]:
        """Take the windows whose turn it is, if there is room for them and they have waited for others."""
        with self._condition:
            if self._closed or not self._queue or self._get_batch_delay_s() > 0:
                return []
            # One way of searching may have no room while another has.
            first = next(
                (job for job in self._queue.iterate_in_order() if self._batches.has_capacity(job)), None
            )
            if first is None:
                return []
            batch = self._collect_batch(first)
            self._queue.dequeue(batch)
            return batch

    def _collect_batch(self, first: InferenceRequest) -> list[InferenceRequest]:
        """A job and what may be encoded along with it."""
        batch = [first]
        for job in self._queue.iterate_in_order():
            if (
                job is not first
                and job.can_batch_with(first)
                and job.interim <= first.interim
                and self._batches.has_capacity(job, batch)
                and _has_similar_length(job, batch)
            ):
                batch.append(job)
        return batch

    def _start_batch(self, batch: list[InferenceRequest]) -> None:
        began = time.monotonic()
        for job in batch:
            self._device_s[job] = 0.0
            job.future.started_at = began
        self._batches.start(batch)
        took_s = time.monotonic() - began
        self._add_device_time(batch, took_s)
        if self._observer is not None:
            with self._condition:
                waiting = len(self._queue)
            self._observer.set_queue_depth(waiting)
            for job in batch:
                self._observer.observe_queue_wait(began - job.submitted_at, interim=job.interim)
            self._observer.observe_encode(len(batch), took_s)

    def _step(self) -> None:
        """Search one unit further; interim work waits while final work does."""
        with self._condition:
            final_waits = any(not job.interim for job in self._queue)
        jobs = self._batches.requests
        final_only = final_waits and any(not job.interim for job in jobs)
        stepping = [job for job in jobs if not (final_only and job.interim)]
        if not stepping:
            return
        began = time.monotonic()
        self._batches.step(final_only=final_only)
        took_s = time.monotonic() - began
        self._add_device_time(stepping, took_s)
        if self._observer is not None:
            self._observer.observe_decode_step(len(stepping), took_s)

    def _add_device_time(self, requests: list[InferenceRequest], took_s: float) -> None:
        for job in requests:
            if job in self._device_s:
                self._device_s[job] += took_s / len(requests)

    def _report_device_time(self, request: InferenceRequest) -> float:
        """A job is over: charge its stream with what it took, in seconds."""
        took_s = self._device_s.pop(request, 0.0)
        if took_s:
            self._on_device_time(request.stream, took_s)
        return took_s

    def _complete(self, request: InferenceRequest, outcome: Outcome) -> None:
        with self._condition:
            self._unfinished.discard(request)
        took_s = self._report_device_time(request)
        if not _try_claim(request):
            self._count_drop("cancelled")
        elif isinstance(outcome, Exception):
            self._count_drop("failed")
            request.future.set_exception(self._to_caller_error(outcome))
        else:
            if self._observer is not None:
                self._observer.observe_result(request.window.frames, took_s, stream=request.stream)
            request.future.set_result(outcome)

    def _to_caller_error(self, error: Exception) -> Exception:
        """What to tell of a failure: where the device is lost, nothing is wrong with the window, and no more is read here."""
        if isinstance(error, GorggleError) or self._is_device_healthy():
            return error
        with self._condition:
            self._closed = True
        lost = NotReadyError(
            "this server has lost its device and is started anew: send the rest to another one"
        )
        lost.__cause__ = error
        return lost

    def _count_drop(self, cause: str) -> None:
        if self._observer is not None:
            self._observer.count_drop(cause)


def _try_claim(request: InferenceRequest) -> bool:
    """Whether the outcome may be told: from now on it can no longer be cancelled."""
    return not request.future.done() and request.future.set_running_or_notify_cancel()


def _has_similar_length(request: InferenceRequest, batch: list[InferenceRequest]) -> bool:
    """Whether at most half of the batch would be padding."""
    frames = [request.window.frames, *(other.window.frames for other in batch)]
    return 2 * sum(frames) >= max(frames) * len(frames)
