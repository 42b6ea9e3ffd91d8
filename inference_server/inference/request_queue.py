"""Queue of inference requests, with fair scheduling between streams."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from gorggle_server.events import Hypothesis
from gorggle_server.inference.interface import DecodingOptions, InferenceInput


class PendingResult(Future[list[Hypothesis]]):
    """Future of the hypotheses.

    Attributes:
        started_at: ``time.monotonic`` when inference started; None before.
    """

    started_at: float | None = None


@dataclass(eq=False)
class InferenceRequest:
    """A window submitted for inference.

    Attributes:
        stream: the stream it belongs to; streams share the device evenly.
        future: stays pending until the result is available, so that it can be cancelled at any time before.
        is_isolated: a batch with this request has failed: it runs alone from now on.
    """

    model: str
    window: InferenceInput
    options: DecodingOptions
    interim: bool = False
    stream: Hashable = None
    future: PendingResult = field(default_factory=PendingResult)
    submitted_at: float = field(default_factory=time.monotonic)
    is_isolated: bool = False

    def can_batch_with(self, other: InferenceRequest) -> bool:
        """Return whether the two can be encoded in one batch."""
        return (
            self.model == other.model
            and self.options == other.options
            and self.window.modality is other.window.modality
        )


class FairQueue:
    """Final work before interim work; within each, the stream with the least device time is next.

    Start-time fair queueing (Goyal, Vin and Cheng, 1996): each stream's clock advances by the frames processed for it, and the
    stream whose clock is furthest behind is next. An idle stream does not accumulate credit: when it returns, its clock is set
    forward to the others'. Not thread-safe.
    """

    def __init__(self) -> None:
        self._pending: dict[Hashable, list[InferenceRequest]] = defaultdict(list)
        self._clocks: dict[Hashable, float] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._pending.values()))

    def __iter__(self) -> Iterator[InferenceRequest]:
        for requests in self._pending.values():
            yield from requests

    def put(self, request: InferenceRequest) -> None:
        """Add a request."""
        if request.stream not in self._pending:
            self._clocks[request.stream] = max(self._clocks.get(request.stream, 0.0), self._now)
        self._pending[request.stream].append(request)

    def iterate_in_order(self) -> Iterator[InferenceRequest]:
        """Yield all requests in the order in which they would be processed."""
        for interim in (False, True):
            lines = {
                stream: deque(request for request in requests if request.interim is interim)
                for stream, requests in self._pending.items()
            }
            turns = [
                (self._clocks[stream], line[0].submitted_at, id(line[0]), stream)
                for stream, line in lines.items()
                if line
            ]
            heapq.heapify(turns)
            while turns:
                clock, _, _, stream = heapq.heappop(turns)
                request = lines[stream].popleft()
                yield request
                if lines[stream]:
                    following = lines[stream][0]
                    turn = (clock + request.window.frames, following.submitted_at, id(following), stream)
                    heapq.heappush(turns, turn)

    def dequeue(self, requests: Iterable[InferenceRequest]) -> None:
        """Remove requests that are being started, and advance their streams' clocks."""
        for request in requests:
            self._now = max(self._now, self._clocks[request.stream])
            self._clocks[request.stream] += request.window.frames
            self.remove(request)

    def remove(self, request: InferenceRequest) -> None:
        """Remove a request without advancing its stream's clock."""
        self._pending[request.stream].remove(request)
        if not self._pending[request.stream]:
            del self._pending[request.stream]
        # Discard clocks that are not ahead: they carry no information.
        for stream in [stream for stream in self._clocks if stream not in self._pending]:
            if self._clocks[stream] <= self._now:
                del self._clocks[stream]
