"""Device scheduler: one thread that batches inference requests of all streams.

The interface (``InferenceBackend``) takes windows of crops and audio, never streams, so a pool of devices can replace it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Protocol

from prometheus_client import CollectorRegistry

from gorggle_server.errors import GorggleError, NotFoundError, NotReadyError
from gorggle_server.events import Hypothesis
from gorggle_server.inference.batch_runner import BatchRunner, Outcome
from gorggle_server.inference.interface import DecodingOptions, InferenceInput, SpeechRecognizer
from gorggle_server.inference.request_queue import FairQueue, InferenceRequest
from gorggle_server.inference.scheduler_metrics import SchedulerMetrics
from gorggle_server.input_format import frames_to_seconds


class InferenceBackend(Protocol):
    """Runs inference: on this process's device, or in a pool.

    ``tests/server/backend_conformance.py`` specifies the required behaviour.
    """

    def submit(
        self,
        model: str,
        window: InferenceInput,
        options: DecodingOptions,
        *,
        interim: bool = False,
        stream: Hashable = None,
    ) -> Future[list[Hypothesis]]:
        """Queue a window. Cancelling the future releases its slot, also during inference.

        Args:
            model: name of a served model.
            window: input of the model.
            options: beam search options.
            interim: yields to final work.
            stream: the stream it belongs to; streams share the device evenly.

        Returns:
            Hypotheses, best first. The future fails with ``ModelFormatError`` if the model's output is not finite, and with any
            error of the device.

        Raises:
            NotFoundError: the model does not exist.
            NotReadyError: the backend is shutting down.
        """


class SubmitFunction(Protocol):
    """``InferenceBackend.submit`` with the model and the stream bound."""

    def __call__(
        self, window: InferenceInput, options: DecodingOptions, *, interim: bool = False
    ) -> Future[list[Hypothesis]]:
        """Queue a window."""


class DeviceScheduler:
    """Runs recognizers on one thread; similar windows that wait together are batched."""

    def __init__(
        self,
        recognizers: Mapping[str, SpeechRecognizer],
        max_batch_delay_s: float,
        max_batch_frames: int,
        metrics: SchedulerMetrics | None = None,
        on_device_time: Callable[[Hashable, float], None] = lambda _stream, _device_s: None,
        is_device_healthy: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start the thread.

        A window waits ``max_batch_delay_s`` for others before it is encoded; running searches continue meanwhile. A padded
        batch holds at most ``max_batch_frames``: its windows times the longest of them; 2000 are four utterances of 20 s.
        ``on_device_time`` is called on it with the stream and the device seconds of each window (its share of its batches),
        whether or not the window finished. ``is_device_healthy`` is checked after a failed inference.
        """
        self._on_device_time, self._is_device_healthy = on_device_time, is_device_healthy
        self._recognizers, self._max_batch_delay_s = recognizers, max_batch_delay_s
        self._metrics = metrics or SchedulerMetrics(CollectorRegistry())
        self._queue = FairQueue()
        self._batches = BatchRunner(recognizers, max_batch_frames, self._complete)
        self._unfinished: set[InferenceRequest] = set()  # waiting or running
        self._device_s: dict[InferenceRequest, float] = {}  # device time of each running request so far
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
    ) -> Future[list[Hypothesis]]:
        """Queue a window; see ``InferenceBackend``."""
        if model not in self._recognizers:
            raise NotFoundError(f"model {model!r} does not exist; available: {', '.join(self._recognizers)}")
        request = InferenceRequest(model, window, options, interim, stream)
        with self._condition:
            if self._closed:
                raise NotReadyError("the server is shutting down: send the request to another one")
            self._unfinished.add(request)
            self._queue.put(request)
            self._condition.notify()
        return request.future

    def close(self) -> None:
        """Finish running requests, cancel waiting ones, and stop the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._has_work():
                self._drop_cancelled()
                if batch := self._next_batch():
                    self._start_batch(batch)
                self._step()
        finally:
            # However this thread ends, callers must not wait forever.
            with self._condition:
                self._closed = True
                left, self._unfinished = self._unfinished, set()
            for request in left:
                request.future.cancel()

    def _has_work(self) -> bool:
        """Wait for work; return False if none will come. After ``close`` only running requests are work."""
        with self._condition:
            while not self._batches.requests:
                if self._closed:
                    return False
                if not self._queue:
                    self._condition.wait()
                    continue
                # Do not wait if the batch is full or the scheduler is closing.
                if (pause := self._get_batch_delay_s()) <= 0:
                    return True
                self._condition.wait(pause)
            return True

    def _get_batch_delay_s(self) -> float:
        """Return the seconds until the next request has waited long enough for others."""
        first = next(self._queue.iterate_in_order())
        companions = self._collect_batch(first)
        if len(companions) < len(self._queue) and not self._batches.has_capacity(first, companions):
            return 0.0
        return first.submitted_at + self._max_batch_delay_s - time.monotonic()

    def _drop_cancelled(self) -> None:
        running = set(self._batches.requests)
        with self._condition:
            unwanted = [request for request in self._unfinished if request.future.done()]
            self._unfinished.difference_update(unwanted)
            for request in unwanted:
                if request not in running:
                    self._queue.remove(request)
        self._batches.remove(request for request in unwanted if request in running)
        for request in unwanted:
            self._report_device_time(request)
            request.future.set_running_or_notify_cancel()
            self._metrics.count_drop("cancelled")

    def _next_batch(self) -> list[InferenceRequest]:
        """Dequeue the next requests, if they fit and have waited long enough for others."""
        with self._condition:
            if self._closed or not self._queue or self._get_batch_delay_s() > 0:
                return []
            # A batch with some options may be full while another has capacity.
            first = next(
                (
                    request
                    for request in self._queue.iterate_in_order()
                    if self._batches.has_capacity(request)
                ),
                None,
            )
            if first is None:
                return []
            batch = self._collect_batch(first)
            self._queue.dequeue(batch)
            return batch

    def _collect_batch(self, first: InferenceRequest) -> list[InferenceRequest]:
        """Return a request and those that may be encoded together with it."""
        batch = [first]
        for request in self._queue.iterate_in_order():
            if (
                request is not first
                and request.can_batch_with(first)
                and request.interim <= first.interim
                and self._batches.has_capacity(request, batch)
                and _has_similar_length(request, batch)
            ):
                batch.append(request)
        return batch

    def _start_batch(self, batch: list[InferenceRequest]) -> None:
        began = time.monotonic()
        for request in batch:
            self._device_s[request] = 0.0
            request.future.started_at = began
        self._batches.start(batch)
        elapsed_s = time.monotonic() - began
        self._add_device_time(batch, elapsed_s)
        with self._condition:
            self._metrics.queue_depth.set(len(self._queue))
        for request in batch:
            result = "interim" if request.interim else "final"
            self._metrics.queue_wait_s.labels(result).observe(began - request.submitted_at)
        self._metrics.encode_batch.observe(len(batch))
        self._metrics.encode_s.observe(elapsed_s)

    def _step(self) -> None:
        """Run one search step; interim work pauses while final work is waiting."""
        with self._condition:
            final_waits = any(not request.interim for request in self._queue)
        requests = self._batches.requests
        final_only = final_waits and any(not request.interim for request in requests)
        stepping = [request for request in requests if not (final_only and request.interim)]
        if not stepping:
            return
        began = time.monotonic()
        self._batches.step(final_only=final_only)
        elapsed_s = time.monotonic() - began
        self._add_device_time(stepping, elapsed_s)
        self._metrics.decode_batch.observe(len(stepping))
        self._metrics.decode_step_s.observe(elapsed_s)

    def _add_device_time(self, requests: list[InferenceRequest], elapsed_s: float) -> None:
        for request in requests:
            if request in self._device_s:
                self._device_s[request] += elapsed_s / len(requests)

    def _report_device_time(self, request: InferenceRequest) -> float:
        """Report the device time of a finished request to its stream's account."""
        elapsed_s = self._device_s.pop(request, 0.0)
        if elapsed_s:
            self._on_device_time(request.stream, elapsed_s)
        return elapsed_s

    def _complete(self, request: InferenceRequest, outcome: Outcome) -> None:
        with self._condition:
            self._unfinished.discard(request)
        elapsed_s = self._report_device_time(request)
        if not _try_claim(request):
            self._metrics.count_drop("cancelled")
        elif isinstance(outcome, Exception):
            self._metrics.count_drop("failed")
            request.future.set_exception(self._to_caller_error(outcome))
        else:
            self._metrics.device_busy_s.inc(elapsed_s)
            self._metrics.decoded_media_s.inc(frames_to_seconds(request.window.frames))
            request.future.set_result(outcome)

    def _to_caller_error(self, error: Exception) -> Exception:
        """Return the error for the caller; if the device is lost, refuse further requests."""
        if isinstance(error, GorggleError) or self._is_device_healthy():
            return error
        with self._condition:
            self._closed = True
        lost = NotReadyError(
            "the device of this server has failed and the server restarts: send the rest to another one"
        )
        lost.__cause__ = error
        return lost


def _try_claim(request: InferenceRequest) -> bool:
    """Return whether the result may be set: the future can no longer be cancelled."""
    return not request.future.done() and request.future.set_running_or_notify_cancel()


def _has_similar_length(request: InferenceRequest, batch: list[InferenceRequest]) -> bool:
    """Return whether at most half of the batch would be padding."""
    frames = [request.window.frames, *(other.window.frames for other in batch)]
    return 2 * sum(frames) >= max(frames) * len(frames)
