"""Windows on the device: encoded together, searched together, and kept apart from each other's failures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from gorggle_server.errors import ModelFormatError
from gorggle_server.inference.recognizer import DecodingBatch, Recognizer, is_out_of_memory
from gorggle_server.inference.request_queue import InferenceRequest
from gorggle_server.types import Hypothesis

_log = logging.getLogger(__name__)

Outcome = list[Hypothesis] | Exception


@dataclass
class _Batch:
    """Windows that are searched together."""

    decoding: DecodingBatch
    requests: dict[InferenceRequest, torch.Tensor] = field(default_factory=dict)

    @property
    def max_frames(self) -> int:
        return max((job.window.frames for job in self.requests), default=0)


class BatchRunner:
    """All that the device is reading, in one batch for each way of searching.

    Windows join a batch and leave it between two steps of its search. When a call of the device fails, those that were
    part of the call are read once more, one by one: only whoever fails alone too has failed. Belongs to one thread.
    """

    def __init__(
        self,
        recognizers: Mapping[str, Recognizer],
        max_frames: int,
        on_result: Callable[[InferenceRequest, Outcome], None],
    ) -> None:
        """Begin empty.

        Args:
            recognizers: the models by name.
            max_frames: of one padded batch, its windows times the longest of them.
            on_result: takes what became of each job, which then is not in any batch.
        """
        self._recognizers, self._max_frames, self._on_result = recognizers, max_frames, on_result
        self._batches: dict[Hashable, _Batch] = {}

    @property
    def requests(self) -> list[InferenceRequest]:
        """All jobs being read."""
        return [job for batch in self._batches.values() for job in batch.requests]

    def has_capacity(self, request: InferenceRequest, joining: Sequence[InferenceRequest] = ()) -> bool:
        """Whether a job may join, along with others that join the same batch; a batch of one is always possible."""
        batch = self._batches.get(_get_batch_key(request))
        inside = len(joining) + (len(batch.requests) if batch else 0)
        longest = max(
            [
                request.window.frames,
                batch.max_frames if batch else 0,
                *(other.window.frames for other in joining),
            ]
        )
        return not inside or longest * (inside + 1) <= self._max_frames

    def start(self, requests: Sequence[InferenceRequest]) -> None:
        """Encode windows that are alike, and let them join their batch."""
        recognizer = self._recognizers[requests[0].model]
        try:
            encoded = recognizer.encode([job.window for job in requests])
        except Exception as error:  # the border to the device: the error belongs to the callers
            self._retry_separately(requests, error, self.start)
            return
        sound: dict[InferenceRequest, torch.Tensor] = {}
        for job, found in zip(requests, encoded, strict=True):
            if isinstance(found, ModelFormatError):
                self._on_result(job, found)
            else:
                sound[job] = found
        self._add(sound)

    def step(self, *, final_only: bool) -> None:
        """Search one unit further in every batch, or in those alone that hold final work."""
        for key, batch in list(self._batches.items()):
            if final_only and all(job.interim for job in batch.requests):
                continue
            try:
                ended = batch.decoding.step()
            except Exception as error:  # the border to the device, as above
                self._restart_batch(key, error)
                continue
            for job, readings in ended.items():
                assert isinstance(job, InferenceRequest)
                del batch.requests[job]
                self._on_result(job, readings)
            if not batch.requests:
                del self._batches[key]

    def remove(self, requests: Iterable[InferenceRequest]) -> None:
        """Take jobs out in the middle of their search."""
        for job in requests:
            batch = self._batches.get(_get_batch_key(job))
            if batch is None:
                continue  # its batch broke up meanwhile, and it failed
            del batch.requests[job]
            if not batch.requests:
                del self._batches[_get_batch_key(job)]
                continue
            try:
                batch.decoding.remove(job)
            except Exception as error:  # the border to the device, as above
                self._restart_batch(_get_batch_key(job), error)

    def _add(self, encoded: Mapping[InferenceRequest, torch.Tensor]) -> None:
        if not encoded:
            return
        first = next(iter(encoded))
        batch = self._batches.get(_get_batch_key(first))
        if batch is None:
            batch = _Batch(self._recognizers[first.model].start_decoding(first.options))
            self._batches[_get_batch_key(first)] = batch
        batch.requests.update(encoded)
        try:
            batch.decoding.add(list(encoded), list(encoded.values()))
        except Exception as error:  # the border to the device, as above
            self._restart_batch(_get_batch_key(first), error)

    def _restart_batch(self, key: Hashable, error: Exception) -> None:
        """Nobody knows what state a batch is in whose step has failed: its jobs begin their search anew."""
        jobs = self._batches.pop(key).requests
        self._retry_separately(list(jobs), error, lambda alone: self._add({job: jobs[job] for job in alone}))

    def _retry_separately(
        self,
        requests: Sequence[InferenceRequest],
        error: Exception,
        restart: Callable[[Sequence[InferenceRequest]], None],
    ) -> None:
        full = is_out_of_memory(error)
        _log.warning("reading %d windows together failed", len(requests), exc_info=error)
        if full:
            self._recognizers[requests[0].model].release_memory()
        for job in requests:
            # One that was by itself is only tried again where room was lacking, which there is more of now.
            if job.is_isolated or (len(requests) == 1 and not full):
                self._on_result(job, error)
            else:
                job.is_isolated = True
                restart([job])


def _get_batch_key(request: InferenceRequest) -> Hashable:
    return (request.model, request.options, request if request.is_isolated else None)
