"""Windows that wait for the device, and whose turn it is."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from gorggle_server.inference.recognizer import DecodingOptions, InferenceInput
from gorggle_server.types import Hypothesis


class PendingResult(Future[list[Hypothesis]]):
    """Readings to come.

    Attributes:
        started_at: of ``time.monotonic``, when the device took the window on; None before.
    """

    started_at: float | None = None


@dataclass(eq=False)
class InferenceRequest:
    """A window on its way to its readings.

    Attributes:
        stream: whose it is: streams share the device evenly.
        utterance: what it is a reading of, unique in its stream; None where nothing can supersede it.
        deadline: of ``time.monotonic``, after which nobody wants the readings; None: never.
        future: stays pending until the readings are there, so that it can be cancelled at any time before.
        is_isolated: a batch that it was in has failed: from now on it is read by itself.
    """

    model: str
    window: InferenceInput
    options: DecodingOptions
    interim: bool = False
    stream: Hashable = None
    utterance: Hashable = None
    deadline: float | None = None
    future: PendingResult = field(default_factory=PendingResult)
    submitted_at: float = field(default_factory=time.monotonic)
    is_isolated: bool = False

    def can_batch_with(self, other: InferenceRequest) -> bool:
        """Whether the two can be encoded in one batch."""
        return (
            self.model == other.model
            and self.options == other.options
            and self.window.modality is other.window.modality
        )

    def is_superseded_by(self, stream: Hashable, utterance: Hashable) -> bool:
        """Whether a newer reading of this utterance makes it worthless."""
        return (
            self.interim
            and self.utterance is not None
            and (self.stream, self.utterance) == (stream, utterance)
        )


class FairQueue:
    """Final work before interim work; among equals the stream that has had the least of the device goes first.

    Start-time fair queueing (Goyal, Vin and Cheng, 1996): each stream's clock advances by the frames that are read for
    it, and the stream whose clock is furthest behind is next. A stream that had nothing to read does not save up turns:
    its clock is set forward to where the others are when it comes back. Not safe for threads.
    """

    def __init__(self) -> None:
        self._pending: dict[Hashable, list[InferenceRequest]] = defaultdict(list)
        self._clocks: dict[Hashable, float] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._pending.values()))

    def __iter__(self) -> Iterator[InferenceRequest]:
        for jobs in self._pending.values():
            yield from jobs

    def put(self, request: InferenceRequest) -> None:
        """Let a job wait for its turn."""
        if request.stream not in self._pending:
            self._clocks[request.stream] = max(self._clocks.get(request.stream, 0.0), self._now)
        self._pending[request.stream].append(request)

    def iterate_in_order(self) -> Iterator[InferenceRequest]:
        """All that waits, in the order in which it would be read."""
        for interim in (False, True):
            lines = {
                stream: deque(job for job in jobs if job.interim is interim)
                for stream, jobs in self._pending.items()
            }
            turns = [
                (self._clocks[stream], line[0].submitted_at, id(line[0]), stream)
                for stream, line in lines.items()
                if line
            ]
            heapq.heapify(turns)
            while turns:
                clock, _, _, stream = heapq.heappop(turns)
                job = lines[stream].popleft()
                yield job
                if lines[stream]:
                    following = lines[stream][0]
                    turn = (clock + job.window.frames, following.submitted_at, id(following), stream)
                    heapq.heappush(turns, turn)

    def dequeue(self, requests: Iterable[InferenceRequest]) -> None:
        """The turn of these has come: they leave, and their streams' clocks advance."""
        for job in requests:
            self._now = max(self._now, self._clocks[job.stream])
            self._clocks[job.stream] += job.window.frames
            self.remove(job)

    def remove(self, request: InferenceRequest) -> None:
        """A job leaves without its turn."""
        self._pending[request.stream].remove(request)
        if not self._pending[request.stream]:
            del self._pending[request.stream]
        # Clocks that are no further than everybody's say nothing more.
        for stream in [stream for stream in self._clocks if stream not in self._pending]:
            if self._clocks[stream] <= self._now:
                del self._clocks[stream]
