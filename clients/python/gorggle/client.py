"""The client for ordinary programs: every call waits in the thread that makes it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from gorggle import calls, requests
from gorggle.calls import Question, StreamCall, T
from gorggle.client_base import ClientBase
from gorggle.descriptions import Model, ServerInfo
from gorggle.errors import DeadlineError, GorggleError, InvalidSourceError, UnavailableError
from gorggle.reception import Feed, Reception
from gorggle.requests import ReadingOptions, StreamRequest
from gorggle.results import Segment, Transcript
from gorggle.sources import Media, Messages
from gorggle.statuses import Status
from gorggle.v1 import lip_reading_pb2_grpc


class Client(ClientBase["Transcription", Transcript]):
    """A client of one server. It may be used from several threads at once.

    ::

        with gorggle.Client("127.0.0.1:50051") as client:
            for segment in client.transcribe("clip.mp4"):
                print(segment.start_s, segment.speaker, segment.text)
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are still going on are cancelled."""
        self._is_closed = True
        self._channel.close()

    def models(self) -> list[Model]:
        """List the server's models, the default one first, with what their licences permit."""
        return self._ask(calls.models_question(), self._ask_timeout_s())

    def model(self, name: str | None = None) -> Model:
        """Describe one model; default: the server's default model.

        Raises:
            NotFoundError: the server has no such model.
        """
        return self._ask(calls.model_question(name), self._ask_timeout_s())

    def server_info(self) -> ServerInfo:
        """Tell the server's version, limits and load."""
        return self._ask(calls.server_info_question(), self._ask_timeout_s())

    def wait_until_ready(self, timeout_s: float = 60.0) -> ServerInfo:
        """Wait until the server can be reached and has loaded its models.

        Raises:
            UnavailableError: it was not ready in time.
        """
        last: GorggleError | None = None
        for attempt in calls.attempts(timeout_s):
            try:
                return self._ask(calls.server_info_question(), attempt.timeout_s)
            except (UnavailableError, DeadlineError) as error:
                last = error
            time.sleep(attempt.pause_s)
        raise self._not_ready(timeout_s, last)

    # --------------------------------------------------------------------------------------------------- mechanics

    def _open(self) -> None:
        link = self._connection
        if link.credentials is None:
            self._channel = grpc.insecure_channel(link.target, link.options)
        else:
            self._channel = grpc.secure_channel(link.target, link.credentials, link.options)
        self._stub = lip_reading_pb2_grpc.LipReadingStub(self._channel)

    def _ask(self, question: Question[T], timeout_s: float | None) -> T:
        self._check_open()
        method = getattr(self._stub, question.method)
        try:
            answer = method(question.request, timeout=timeout_s, metadata=self._connection.metadata)
        except grpc.RpcError as error:
            raise self._error_of(Status.of(error)) from None
        return question.answer(answer)

    def _stream(self, call: StreamCall) -> Transcription:
        return Transcription(call, _synchronous(call.media), self._start, self._error_of)

    def _start(self, messages: Iterator[StreamRequest], timeout_s: float | None) -> Any:
        self._check_open()
        return self._stub.StreamingRecognize(messages, timeout=timeout_s, metadata=self._connection.metadata)

    def _recognize(self, options: ReadingOptions, media: Media, timeout_s: float | None) -> Transcript:
        request = requests.clip_request(options, _synchronous(media))
        return self._ask(calls.clip_question(request, media.name), timeout_s)

    def _recognize_at(self, question: Question[Transcript], timeout_s: float | None) -> Transcript:
        return self._ask(question, timeout_s)


class Transcription(Reception, Iterator[Segment]):
    """The segments of one stream, as they come; ``Client.transcribe`` gives it.

    Its attributes tell what is known so far; see ``Reception``. Leaving it early is no fault: ``close`` it, use it
    in a ``with`` statement, or drop it, and the call is cancelled. A source that is not a file is read in a thread
    of its own.
    """

    def __init__(
        self,
        call: StreamCall,
        messages: Messages,
        start: Callable[[Iterator[StreamRequest], float | None], Any],
        error_of: Callable[[Status, str], GorggleError],
    ) -> None:
        self._feed = _Feed(call.opening)
        self._messages = messages
        super().__init__(call.media.name, self._feed)
        self._details = call
        self._start = start
        self._error_of = error_of
        self._call: Any = None
        self._is_over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Segment:
        if self._is_over:
            raise StopIteration
        try:
            return self._next_segment()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the call, if it is still going on. May be called from any thread."""
        self._is_over = True
        if self._call is not None:
            self._call.cancel()

    def transcript(self) -> Transcript:
        """Read to the end, and give everything that was still to come as one transcript."""
        return self._transcript(list(self))

    def _next_segment(self) -> Segment:
        if self._call is None:
            self._call = self._start(self._feed.requests(self._messages), self._details.timeout_s)
            self._feed.cancelling(self._call)
        while True:
            try:
                message = next(self._call)
            except grpc.RpcError as error:
                raise self._feed.failure or self._error_of(Status.of(error), self.request_id) from None
            except StopIteration:
                self._check_finished()
                raise
            item = self._take(message)
            if isinstance(item, Segment):
                return item
            if item is not None and self._details.on_event is not None:
                self._details.on_event(item)


class _Feed(Feed):
    """The requests of one stream, which gRPC takes in a thread of its own.

    When the source fails, gRPC would hide why; here the error is kept, and the call cancelled so that the receiving
    side wakes up and raises it.
    """

    def __init__(self, opening: StreamRequest) -> None:
        super().__init__(opening)
        self._call: Any = None
        self._call_is_known = threading.Event()

    def cancelling(self, call: Any) -> None:
        """Say which call to cancel when the source fails."""
        self._call = call
        self._call_is_known.set()

    def requests(self, messages: Messages) -> Iterator[StreamRequest]:
        """The configuration, then the media.

        Only gRPC's thread holds what this gives: when the thread is done with it, however it ends, it is dropped, and
        with that the source is closed.
        """
        yield self.opening
        try:
            with contextlib.closing(messages):
                for message in messages:
                    self.bytes_sent += len(message.media)
                    yield message
        except Exception as error:
            self.failure = error
            self._call_is_known.wait()
            self._call.cancel()


def _synchronous(media: Media) -> Messages:
    if isinstance(media.messages, Generator):
        return media.messages
    raise InvalidSourceError("the source is asynchronous: use AsyncClient, or give an ordinary iterable")
