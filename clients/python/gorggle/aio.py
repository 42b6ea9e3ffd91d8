"""The client for asyncio: every call waits in the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import grpc
from grpc import aio

from gorggle import calls, requests
from gorggle.calls import Question, StreamCall, T
from gorggle.client_base import ClientBase
from gorggle.descriptions import Model, ServerInfo
from gorggle.errors import CallCancelledError, DeadlineError, GorggleError, UnavailableError
from gorggle.events import Event
from gorggle.reception import Feed, Reception
from gorggle.requests import ReadingOptions, StreamRequest
from gorggle.results import Segment, Transcript
from gorggle.sources import Media
from gorggle.statuses import Status
from gorggle.v1 import lip_reading_pb2_grpc

# What grpc.aio reports where a write failed, and how long the server's own status may take to come.
WRITE_FAILED = "Internal error from Core"
SETTLE_S = 1.0


class AsyncClient(ClientBase["AsyncTranscription", Coroutine[Any, Any, Transcript]]):
    """A client of one server, for one event loop.

    ::

        async with gorggle.AsyncClient("127.0.0.1:50051") as client:
            async for segment in client.transcribe("clip.mp4"):
                print(segment.start_s, segment.speaker, segment.text)
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are still going on are cancelled."""
        self._is_closed = True
        # Closing a channel of grpc.aio does not find every call that is waited for (seen with grpcio 1.81).
        for call in tuple(self._calls):
            call.cancel()
        if self._channel is not None:
            await self._channel.close()

    async def models(self) -> list[Model]:
        """List the server's models, the default one first, with what their licences permit."""
        return await self._ask(calls.models_question(), self._ask_timeout_s())

    async def model(self, name: str | None = None) -> Model:
        """Describe one model; default: the server's default model.

        Raises:
            NotFoundError: the server has no such model.
        """
        return await self._ask(calls.model_question(name), self._ask_timeout_s())

    async def server_info(self) -> ServerInfo:
        """Tell the server's version, limits and load."""
        return await self._ask(calls.server_info_question(), self._ask_timeout_s())

    async def wait_until_ready(self, timeout_s: float = 60.0) -> ServerInfo:
        """Wait until the server can be reached and has loaded its models.

        Raises:
            UnavailableError: it was not ready in time.
        """
        last: GorggleError | None = None
        for attempt in calls.attempts(timeout_s):
            try:
                return await self._ask(calls.server_info_question(), attempt.timeout_s)
            except (UnavailableError, DeadlineError) as error:
                last = error
            await asyncio.sleep(attempt.pause_s)
        raise self._not_ready(timeout_s, last)

    # --------------------------------------------------------------------------------------------------- mechanics

    def _open(self) -> None:
        # A channel belongs to an event loop, and there may be none yet.
        self._channel: aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: weakref.WeakSet[Any] = weakref.WeakSet()

    def _stub(self) -> Any:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._channel, self._loop = self._new_channel(), loop
        if self._loop is not loop:
            raise RuntimeError("the client was first used in another event loop: make one for each loop")
        return lip_reading_pb2_grpc.LipReadingStub(self._channel)

    def _new_channel(self) -> aio.Channel:
        link = self._connection
        if link.credentials is None:
            return aio.insecure_channel(link.target, link.options)
        return aio.secure_channel(link.target, link.credentials, link.options)

    async def _ask(self, question: Question[T], timeout_s: float | None) -> T:
        method = getattr(self._stub(), question.method)
        call = method(question.request, timeout=timeout_s, metadata=self._connection.metadata)
        self._calls.add(call)
        try:
            return question.answer(await call)
        except grpc.RpcError as error:
            raise self._error_of(Status.of(error)) from None
        except asyncio.CancelledError:
            _raise_if_task_is_cancelled()
            raise CallCancelledError(
                "the client was closed during the call", code=grpc.StatusCode.CANCELLED
            ) from None

    def _stream(self, call: StreamCall) -> AsyncTranscription:
        return AsyncTranscription(call, self._start, self._error_of)

    def _start(self, timeout_s: float | None) -> Any:
        call = self._stub().StreamingRecognize(timeout=timeout_s, metadata=self._connection.metadata)
        self._calls.add(call)
        return call

    async def _recognize(self, options: ReadingOptions, media: Media, timeout_s: float | None) -> Transcript:
        messages = [message async for message in _asynchronous(media)]
        request = requests.clip_request(options, messages)
        return await self._ask(calls.clip_question(request, media.name), timeout_s)

    async def _recognize_at(self, question: Question[Transcript], timeout_s: float | None) -> Transcript:
        return await self._ask(question, timeout_s)


class AsyncTranscription(Reception, AsyncIterator[Segment]):
    """The segments of one stream, as they come; ``AsyncClient.transcribe`` gives it.

    Its attributes tell what is known so far; see ``Reception``. To leave it early, ``aclose`` it or use it in an
    ``async with`` statement; the call is cancelled. Sources that are not asynchronous are read in other threads, so
    that the event loop never waits for a disk; what blocks for ever should be asynchronous.
    """

    def __init__(
        self,
        call: StreamCall,
        start: Callable[[float | None], Any],
        error_of: Callable[[Status, str], GorggleError],
    ) -> None:
        self._feed = _Feed(call.opening, _asynchronous(call.media))
        super().__init__(call.media.name, self._feed)
        self._details = call
        self._start = start
        self._error_of = error_of
        self._call: Any = None
        self._answers: AsyncIterator[Any]
        self._sending: asyncio.Task[None] | None = None
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Segment:
        if self._is_over:
            raise StopAsyncIteration
        try:
            return await self._next_segment()
        except BaseException:
            await self.aclose()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._sending is not None and not self._sending.get_loop().is_closed():
            self._sending.cancel()
            self._call.cancel()

    async def aclose(self) -> None:
        """End the call, if it is still going on, and let go of the source."""
        self._is_over = True
        if self._call is not None:
            self._call.cancel()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])

    async def transcript(self) -> Transcript:
        """Read to the end, and give everything that was still to come as one transcript."""
        return self._transcript([segment async for segment in self])

    async def _next_segment(self) -> Segment:
        if self._call is None:
            self._call = self._start(self._details.timeout_s)
            # Not its read(): that gives nothing more once a write failed, though there may be answers to read.
            self._answers = aiter(self._call)
            self._sending = asyncio.create_task(self._feed.send(self._call))
            # A write that fails because the call has just ended would put an error of gRPC's own in the place of the
            # server's: once the call has ended, nothing more may be written.
            self._call.add_done_callback(functools.partial(_cancel, self._sending))
        while True:
            message = await self._next_message()
            item = self._take(message)
            if isinstance(item, Segment):
                return item
            if item is not None:
                await self._tell(item)

    async def _next_message(self) -> Any:
        try:
            return await anext(self._answers)
        except StopAsyncIteration:
            self._check_finished()
            raise
        except grpc.RpcError:
            if self._feed.failure is not None:
                raise self._feed.failure from None
            status = await _server_status(self._call)
        except asyncio.CancelledError:
            _raise_if_task_is_cancelled()
            raise self._feed.failure or CallCancelledError(
                "the client was closed during the call",
                code=grpc.StatusCode.CANCELLED,
                request_id=self.request_id,
            ) from None
        if status.code is not grpc.StatusCode.OK:
            raise self._error_of(status, self.request_id)
        self._check_finished()
        raise StopAsyncIteration

    async def _tell(self, event: Event) -> None:
        if self._details.on_event is not None:
            answer = self._details.on_event(event)
            if inspect.isawaitable(answer):
                await answer


class _Feed(Feed):
    """The requests of one stream, sent by a task of its own."""

    def __init__(self, opening: StreamRequest, messages: AsyncGenerator[StreamRequest, None]) -> None:
        super().__init__(opening)
        self._messages = messages

    async def send(self, call: Any) -> None:
        """Send the configuration, then the media; when the source fails, keep the error and cancel the call."""
        try:
            async with contextlib.aclosing(self._messages) as messages:
                is_open = await _write(call, self.opening)
                async for message in messages:
                    self.bytes_sent += len(message.media)
                    is_open = is_open and await _write(call, message)
                    if not is_open:
                        return
            await _end_of_requests(call)
        except Exception as error:
            self.failure = error
            call.cancel()


async def _server_status(call: Any) -> Status:
    """The status that the server ended the call with, which may be OK.

    When a write fails because the call has ended, grpc.aio first reports an error of its own; the server's status
    takes its place a moment later (seen with grpcio 1.85; its ``set_internal_error``).
    """
    end = time.monotonic() + SETTLE_S
    # gRPC tells of no second status, hence no event to wait for.
    while await call.details() == WRITE_FAILED and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return Status(await call.code(), await call.details(), await call.trailing_metadata())


def _cancel(task: asyncio.Task[None], _call: Any) -> None:
    task.cancel()


async def _write(call: Any, message: StreamRequest) -> bool:
    """Send a message; false where the call has ended meanwhile: reading its answers tells why.

    A call that ended raises ``InvalidStateError`` here, not the error that it ended with.
    """
    try:
        await call.write(message)
    except (asyncio.InvalidStateError, grpc.RpcError):
        return False
    return True


async def _end_of_requests(call: Any) -> None:
    with contextlib.suppress(asyncio.InvalidStateError, grpc.RpcError):
        await call.done_writing()


async def _asynchronous(media: Media) -> AsyncGenerator[StreamRequest, None]:
    """A source's messages; those of an ordinary iterator are made in other threads, one at a time."""
    messages = media.messages
    if isinstance(messages, AsyncIterator):
        async for message in messages:
            yield message
        return
    in_use = threading.Lock()

    def following() -> StreamRequest | None:
        with in_use:
            return next(messages, None)

    def close() -> None:
        with in_use:
            messages.close()

    try:
        while (made := await asyncio.to_thread(following)) is not None:
            yield made
    finally:
        if in_use.acquire(blocking=False):
            try:
                messages.close()
            finally:
                in_use.release()
        else:
            # Another thread still reads, perhaps for ever: the source is closed when that is over.
            threading.Thread(target=close, daemon=True).start()


def _raise_if_task_is_cancelled() -> None:
    """Pass a ``CancelledError`` on, if it was meant for this task; gRPC raises it too when a call is cancelled."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise  # noqa: PLE0704 - only called where an exception is being handled
