"""The calls that a server answers, without the waiting: what is asked, and how the answer is read."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from gorggle._protobuf import decode
from gorggle._protobuf.encode import StreamRequest
from gorggle.events import Event
from gorggle.results import Transcript
from gorggle.server_info import Model, ServerInfo
from gorggle.sources import Media
from gorggle.v1 import lip_reading_pb2, model_pb2, server_pb2

T = TypeVar("T")
OnEvent = Callable[[Event], Awaitable[None] | None]

INITIAL_BACKOFF_S, MAX_BACKOFF_S = 0.1, 1.0


class Deadline:
    """When something must be over that takes several calls; None: never. The time runs from the first call."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._end: float | None = None

    def remaining_s(self) -> float | None:
        """What is left for the next call, at least a moment."""
        if self._timeout_s is None:
            return None
        if self._end is None:
            self._end = time.monotonic() + self._timeout_s
        return max(0.001, self._end - time.monotonic())

    def expires_within(self, seconds: float) -> bool:
        """Whether it comes within so many seconds."""
        left_s = self.remaining_s()
        return left_s is not None and left_s <= seconds


@dataclass(frozen=True)
class StreamCall:
    """One stream to open: the configuration, then the media.

    Attributes:
        replay_buffer_bytes: of a source that cannot be read again, what may be kept for a server that takes over.
        heartbeat_interval_s: what is sent at least so often.
        resume_timeout_s: how long to go on trying to carry the stream on; 0: not at all.
        server_count: how many addresses there are.
    """

    first_request: StreamRequest
    media: Media
    on_event: OnEvent | None
    timeout_s: float | None
    replay_buffer_bytes: int
    heartbeat_interval_s: float
    resume_timeout_s: float
    server_count: int


@dataclass(frozen=True)
class UnaryCall(Generic[T]):
    """One unary call: the method's name, its request, and how its answer is read."""

    method: str
    request: Message
    parse_response: Callable[[Any], T]


def list_models_call(page_token: str) -> UnaryCall[tuple[list[Model], str]]:
    """Ask for a page of models and the next page's token, which is empty on the last page."""
    return UnaryCall(
        "ListModels",
        model_pb2.ListModelsRequest(page_token=page_token),
        lambda answer: ([decode.decode_model(model) for model in answer.models], answer.next_page_token),
    )


def get_model_call(name: str | None) -> UnaryCall[Model]:
    """Ask for one model."""
    return UnaryCall("GetModel", model_pb2.GetModelRequest(name=name or ""), decode.decode_model)


def get_server_info_call() -> UnaryCall[ServerInfo]:
    """Ask what the server is."""
    return UnaryCall("GetServerInfo", server_pb2.GetServerInfoRequest(), decode.decode_server_info)


def recognize_call(request: lip_reading_pb2.RecognizeRequest, file: str) -> UnaryCall[Transcript]:
    """Ask for a clip's transcript."""
    return UnaryCall("Recognize", request, lambda answer: decode.decode_transcript(answer, file))


@dataclass(frozen=True)
class RetryAttempt:
    """One of several attempts: how long it may take, and how long to pause after it."""

    timeout_s: float
    backoff_s: float


def iter_attempts(timeout_s: float) -> Iterator[RetryAttempt]:
    """Attempts at growing distances until the time is over; at least one."""
    end, pause_s = time.monotonic() + timeout_s, INITIAL_BACKOFF_S
    remaining_s = timeout_s
    while True:
        yield RetryAttempt(timeout_s=max(0.01, remaining_s), backoff_s=max(0.0, min(pause_s, remaining_s)))
        remaining_s = end - time.monotonic()
        if remaining_s <= 0:
            return
        pause_s = min(2 * pause_s, MAX_BACKOFF_S)
