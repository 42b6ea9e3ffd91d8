"""Requests and response parsing of each RPC, shared by the blocking and the asyncio client."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from gorggle._protobuf import decode
from gorggle._protobuf.encode import StreamRequest
from gorggle._transport.status_mapping import RpcStatus
from gorggle.errors import GorggleError
from gorggle.events import Event
from gorggle.results import Transcript
from gorggle.server_info import Model
from gorggle.sources import Media
from gorggle.v1 import lip_reading_pb2, model_pb2, server_pb2

T = TypeVar("T")
OnEvent = Callable[[Event], Awaitable[None] | None]

INITIAL_BACKOFF_S, MAX_BACKOFF_S = 0.1, 1.0


class Deadline:
    """Time limit of an operation of several calls, from the first call; None is no limit."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._end: float | None = None

    def remaining_s(self) -> float | None:
        """Return the time left for the next call, at least 1 ms."""
        if self._timeout_s is None:
            return None
        if self._end is None:
            self._end = time.monotonic() + self._timeout_s
        return max(0.001, self._end - time.monotonic())

    def expires_within(self, duration_s: float) -> bool:
        """Whether at most ``duration_s`` is left."""
        remaining_s = self.remaining_s()
        return remaining_s is not None and remaining_s <= duration_s


@dataclass(frozen=True)
class StreamCall:
    """Parameters of one stream; ``Client`` and ``Client.transcribe`` explain them.

    Attributes:
        start: starts a call to a server, given by its index, with a timeout and metadata.
        map_error: returns the error for a status of a call, from the call's request ID and server.
        first_server: index of the server to call first.
    """

    start: Callable[..., Any]
    map_error: Callable[[RpcStatus, str, int], GorggleError]
    first_request: StreamRequest
    media: Media
    on_event: OnEvent | None
    timeout_s: float | None
    replay_buffer_bytes: int
    heartbeat_interval_s: float
    resume_timeout_s: float
    server_count: int
    first_server: int


@dataclass(frozen=True)
class UnaryCall(Generic[T]):
    """One unary call: the method's name, its request, and the parser of its response."""

    method: str
    request: Message
    parse_response: Callable[[Any], T]


GET_SERVER_INFO = UnaryCall("GetServerInfo", server_pb2.GetServerInfoRequest(), decode.decode_server_info)


def list_models_call(page_token: str) -> UnaryCall[tuple[list[Model], str]]:
    """Return the call for a page of models and the token of the next page, empty on the last page."""
    return UnaryCall(
        "ListModels",
        model_pb2.ListModelsRequest(page_token=page_token),
        lambda response: (
            [decode.decode_model(model) for model in response.models],
            response.next_page_token,
        ),
    )


def get_model_call(name: str | None) -> UnaryCall[Model]:
    """Return the call for one model."""
    return UnaryCall("GetModel", model_pb2.GetModelRequest(name=name or ""), decode.decode_model)


def recognize_call(request: lip_reading_pb2.RecognizeRequest, file: str) -> UnaryCall[Transcript]:
    """Return the call for a clip's transcript."""
    return UnaryCall("Recognize", request, lambda response: decode.decode_transcript(response, file))


def iter_attempts(timeout_s: float) -> Iterator[tuple[float, float]]:
    """Yield the timeout of each attempt and the backoff after it, until the timeout; at least one attempt."""
    end, remaining_s, backoff_s = time.monotonic() + timeout_s, timeout_s, INITIAL_BACKOFF_S
    while True:
        yield max(0.01, remaining_s), max(0.0, min(backoff_s, remaining_s))
        remaining_s = end - time.monotonic()
        if remaining_s <= 0:
            return
        backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
