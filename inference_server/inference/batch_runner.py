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
    jobs: dict[InferenceRequest, torch.Tensor] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        return max((job.window.frames for job in self.jobs), default=0)


class BatchRunner:
    """All that the device is reading, in one batch for each way of searching.

    Windows join a batch and leave it between two steps of its search. When a call of the device fails, those that were
    part of the call are read once more, one by one: only whoever fails alone too has failed. Belongs to one thread.
    """

    def __init__(
        self,
        recognizers: Mapping[str, Recognizer],
        max_frames: int,
        tell: Callable[[InferenceRequest, Outcome], None],
    ) -> None:
        """Begin empty.

        Args:
            recognizers: the models by name.
            max_frames: of one padded batch, its windows times the longest of them.
            tell: takes what became of each job, which then is not in any batch.
        """
        self._recognizers, self._max_frames, self._tell = recognizers, max_frames, tell
        self._batches: dict[Hashable, _Batch] = {}

    @property
    def jobs(self) -> list[InferenceRequest]:
        """All jobs being read."""
        return [job for batch in self._batches.values() for job in batch.jobs]

    def has_capacity(self, job: InferenceRequest, companions: Sequence[InferenceRequest] = ()) -> bool:
        """Whether a job may join, along with others that join the same batch; a batch of one is always possible."""
        batch = self._batches.get(_key(job))
        inside = len(companions) + (len(batch.jobs) if batch else 0)
        longest = max(
            [job.window.frames, batch.longest if batch else 0, *(other.window.frames for other in companions)]
        )
        return not inside or longest * (inside + 1) <= self._max_frames

    def start(self, jobs: Sequence[InferenceRequest]) -> None:
        """Encode windows that are alike, and let them join their batch."""
        recognizer = self._recognizers[jobs[0].model]
        try:
            encoded = recognizer.encode([job.window for job in jobs])
        except Exception as error:  # the border to the device: the error belongs to the callers
            self._try_again(jobs, error, self.start)
            return
        sound: dict[InferenceRequest, torch.Tensor] = {}
        for job, found in zip(jobs, encoded, strict=True):
            if isinstance(found, ModelFormatError):
                self._tell(job, found)
            else:
                sound[job] = found
        self._join(sound)

    def step(self, *, final_only: bool) -> None:
        """Search one unit further in every batch, or in those alone that hold final work."""
        for key, batch in list(self._batches.items()):
            if final_only and all(job.interim for job in batch.jobs):
                continue
            try:
                ended = batch.decoding.step()
            except Exception as error:  # the border to the device, as above
                self._break_up(key, error)
                continue
            for job, readings in ended.items():
                assert isinstance(job, InferenceRequest)
                del batch.jobs[job]
                self._tell(job, readings)
            if not batch.jobs:
                del self._batches[key]

    def remove(self, jobs: Iterable[InferenceRequest]) -> None:
        """Take jobs out in the middle of their search."""
        for job in jobs:
            batch = self._batches.get(_key(job))
            if batch is None:
                continue  # its batch broke up meanwhile, and it failed
            del batch.jobs[job]
            if not batch.jobs:
                del self._batches[_key(job)]
                continue
            try:
                batch.decoding.leave(job)
            except Exception as error:  # the border to the device, as above
                self._break_up(_key(job), error)

    def _join(self, encoded: Mapping[InferenceRequest, torch.Tensor]) -> None:
        if not encoded:
            return
        first = next(iter(encoded))
        batch = self._batches.get(_key(first))
        if batch is None:
            batch = _Batch(self._recognizers[first.model].decoding(first.search))
            self._batches[_key(first)] = batch
        batch.jobs.update(encoded)
        try:
            batch.decoding.join(list(encoded), list(encoded.values()))
        except Exception as error:  # the border to the device, as above
            self._break_up(_key(first), error)

    def _break_up(self, key: Hashable, error: Exception) -> None:
        """Nobody knows what state a batch is in whose step has failed: its jobs begin their search anew."""
        jobs = self._batches.pop(key).jobs
        self._try_again(list(jobs), error, lambda alone: self._join({job: jobs[job] for job in alone}))

    def _try_again(
        self,
        jobs: Sequence[InferenceRequest],
        error: Exception,
        begin: Callable[[Sequence[InferenceRequest]], None],
    ) -> None:
        full = is_out_of_memory(error)
        _log.warning("reading %d windows together failed", len(jobs), exc_info=error)
        if full:
            self._recognizers[jobs[0].model].release_memory()
        for job in jobs:
            # One that was by itself is only tried again where room was lacking, which there is more of now.
            if job.alone or (len(jobs) == 1 and not full):
                self._tell(job, error)
            else:
                job.alone = True
                begin([job])


def _key(job: InferenceRequest) -> Hashable:
    return (job.model, job.search, job if job.alone else None)
