"""Run inference requests on the device in batches, isolating failures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gorggle_server.errors import ModelFormatError
from gorggle_server.events import Hypothesis
from gorggle_server.inference.interface import DecodingBatch, SpeechRecognizer
from gorggle_server.inference.recognizer import is_out_of_memory
from gorggle_server.inference.request_queue import InferenceRequest

_log = logging.getLogger(__name__)

Outcome = list[Hypothesis] | Exception


@dataclass
class _Batch:
    """Requests that are decoded together."""

    decoding: DecodingBatch
    requests: dict[InferenceRequest, Any] = field(default_factory=dict)


class BatchRunner:
    """Requests being decoded, in one batch per decoding options.

    Requests join and leave a batch between two steps of its search. When a device call fails, its requests are retried one by
    one: only a request that fails alone has failed. Belongs to one thread.
    """

    def __init__(
        self,
        recognizers: Mapping[str, SpeechRecognizer],
        max_frames: int,
        on_result: Callable[[InferenceRequest, Outcome], None],
    ) -> None:
        """Start empty.

        A padded batch holds at most ``max_frames``: its requests times the longest of them. ``on_result`` receives the outcome
        of each request, which has then left its batch.
        """
        self._recognizers, self._max_frames, self._on_result = recognizers, max_frames, on_result
        self._batches: dict[Hashable, _Batch] = {}

    @property
    def requests(self) -> list[InferenceRequest]:
        """All requests being decoded."""
        return [request for batch in self._batches.values() for request in batch.requests]

    def has_capacity(self, request: InferenceRequest, joining: Sequence[InferenceRequest] = ()) -> bool:
        """Return whether a request fits, together with others that join the same batch; a batch of one always fits."""
        batch = self._batches.get(_get_batch_key(request))
        together = [request, *joining, *(batch.requests if batch else ())]
        longest = max(other.window.frames for other in together)
        return len(together) == 1 or longest * len(together) <= self._max_frames

    def start(self, requests: Sequence[InferenceRequest]) -> None:
        """Encode similar requests together and add them to their batch."""
        recognizer = self._recognizers[requests[0].model]
        try:
            encoded = recognizer.encode([request.window for request in requests])
        except Exception as error:  # device boundary: the error belongs to the callers
            self._retry_separately(requests, error, self.start)
            return
        encoded_requests: dict[InferenceRequest, Any] = {}
        for request, outcome in zip(requests, encoded, strict=True):
            if isinstance(outcome, ModelFormatError):
                self._on_result(request, outcome)
            else:
                encoded_requests[request] = outcome
        self._add(encoded_requests)

    def step(self, *, final_only: bool) -> None:
        """Run one search step in every batch, or only in those with final work."""
        for key, batch in list(self._batches.items()):
            if final_only and all(request.interim for request in batch.requests):
                continue
            try:
                ended = batch.decoding.step()
            except Exception as error:  # device boundary, as above
                self._restart_batch(key, error)
                continue
            for request, result in ended.items():
                assert isinstance(request, InferenceRequest)
                del batch.requests[request]
                self._on_result(request, result)
            if not batch.requests:
                del self._batches[key]

    def remove(self, requests: Iterable[InferenceRequest]) -> None:
        """Remove requests in the middle of their search."""
        for request in requests:
            batch = self._batches.get(_get_batch_key(request))
            if batch is None:
                continue  # its batch was restarted meanwhile, and it failed
            del batch.requests[request]
            if not batch.requests:
                del self._batches[_get_batch_key(request)]
                continue
            try:
                batch.decoding.remove(request)
            except Exception as error:  # device boundary, as above
                self._restart_batch(_get_batch_key(request), error)

    def _add(self, encoded: Mapping[InferenceRequest, Any]) -> None:
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
        except Exception as error:  # device boundary, as above
            self._restart_batch(_get_batch_key(first), error)

    def _restart_batch(self, key: Hashable, error: Exception) -> None:
        """Restart the requests of a batch whose step failed: its state is undefined."""
        requests = self._batches.pop(key).requests
        self._retry_separately(
            list(requests), error, lambda alone: self._add({request: requests[request] for request in alone})
        )

    def _retry_separately(
        self,
        requests: Sequence[InferenceRequest],
        error: Exception,
        restart: Callable[[Sequence[InferenceRequest]], None],
    ) -> None:
        full = is_out_of_memory(error)
        _log.warning("a batch of %d windows failed", len(requests), exc_info=error)
        if full:
            self._recognizers[requests[0].model].release_memory()
        for request in requests:
            # A request that ran alone is only retried after an out-of-memory error, when more memory is free now.
            if request.is_isolated or (len(requests) == 1 and not full):
                self._on_result(request, error)
            else:
                request.is_isolated = True
                restart([request])


def _get_batch_key(request: InferenceRequest) -> Hashable:
    return (request.model, request.options, request if request.is_isolated else None)
