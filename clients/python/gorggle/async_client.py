"""The client for asyncio: every call waits in the running event loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import grpc
from grpc import aio

from gorggle._base_client import ClientBase
from gorggle._protobuf import encode
from gorggle._protobuf.encode import RecognitionOptions
from gorggle._transport import calls
from gorggle._transport.async_sender import AsyncMediaSender, to_async_iterator
from gorggle._transport.calls import Deadline, StreamCall, T, UnaryCall
from gorggle._transport.receiver import StreamReceiver
from gorggle._transport.resume import ResumePolicy
from gorggle._transport.status_mapping import RpcStatus
from gorggle.errors import CallCancelledError, DeadlineError, GorggleError, UnavailableError
from gorggle.events import Event, Interrupted
from gorggle.results import Segment, Transcript
from gorggle.server_info import Model, ServerInfo
from gorggle.sources import Media
from gorggle.v1 import lip_reading_pb2_grpc

# What grpc.aio reports where a write failed, and how long the server's own status may take to come.
WRITE_FAILED = "Internal error from Core"
SETTLE_S = 1.0


class AsyncClient(ClientBase["AsyncTranscriptionStream", Coroutine[Any, Any, Transcript]]):
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
        for channel in self._channels.values():
            await channel.close()

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
        self._channels: dict[int, aio.Channel] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: weakref.WeakSet[Any] = weakref.WeakSet()

    def _stub(self, server: int) -> Any:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("the client was first used in another event loop: make one for each loop")
        if server not in self._channels:
            self._channels[server] = self._new_channel(server)
        return lip_reading_pb2_grpc.LipReadingStub(self._channels[server])

    def _new_channel(self, server: int) -> aio.Channel:
        link = self._connections[server]
        if link.credentials is None:
            return aio.insecure_channel(link.target, link.options)
        return aio.secure_channel(link.target, link.credentials, link.options)

    async def _ask(self, question: UnaryCall[T], timeout_s: float | None) -> T:
        servers = self._servers()
        for server in servers:
            try:
                answer = await self._asked(question, timeout_s, server)
            except UnavailableError:
                if server == servers[-1]:
                    raise
                continue
            self._first_server = server
            return answer
        raise AssertionError("there is at least one server")

    async def _asked(self, question: UnaryCall[T], timeout_s: float | None, server: int) -> T:
        method = getattr(self._stub(server), question.method)
        call = method(question.request, timeout=timeout_s, metadata=self._connections[server].metadata)
        self._calls.add(call)
        try:
            return question.answer(await call)
        except grpc.RpcError as error:
            raise self._error_of(RpcStatus.of(error), server=server) from None
        except asyncio.CancelledError:
            _raise_if_task_is_cancelled()
            raise CallCancelledError(
                "the client was closed during the call", code=grpc.StatusCode.CANCELLED
            ) from None

    def _stream(self, call: StreamCall) -> AsyncTranscriptionStream:
        return AsyncTranscriptionStream(call, self._start, self._error_of, self._servers()[0])

    def _start(self, timeout_s: float | None, server: int, metadata: tuple[tuple[str, str], ...]) -> Any:
        stub = self._stub(server)
        metadata = (*self._connections[server].metadata, *metadata)
        call = stub.StreamingRecognize(timeout=timeout_s, metadata=metadata)
        self._calls.add(call)
        return call

    async def _recognize(
        self, options: RecognitionOptions, media: Media, timeout_s: float | None
    ) -> Transcript:
        messages = [message async for message in to_async_iterator(media.messages)]
        request = encode.clip_request(options, messages)
        return await self._ask(calls.clip_question(request, media.name), timeout_s)

    async def _recognize_at(self, question: UnaryCall[Transcript], timeout_s: float | None) -> Transcript:
        return await self._ask(question, timeout_s)


class AsyncTranscriptionStream(StreamReceiver, AsyncIterator[Segment]):
    """The segments of one stream, as they come; ``AsyncClient.transcribe`` gives it.

    Its attributes tell what is known so far; see ``Reception``. To leave it early, ``aclose`` it or use it in an
    ``async with`` statement; the call is cancelled. Sources that are not asynchronous are read in other threads, so
    that the event loop never waits for a disk; what blocks for ever should be asynchronous.
    """

    def __init__(
        self,
        call: StreamCall,
        start: Callable[[float | None, int, tuple[tuple[str, str], ...]], Any],
        error_of: Callable[[RpcStatus, str, int], GorggleError],
        server: int,
    ) -> None:
        self._delivery = AsyncMediaSender(call.media, call.replay_buffer_bytes, call.heartbeat_interval_s)
        super().__init__(
            call.media.name, self._delivery, ResumePolicy(call.servers, call.resume_timeout_s, first=server)
        )
        self._details = call
        self._start = start
        self._error_of = error_of
        self._deadline = Deadline(call.timeout_s)
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
            self._delivery.drop()
            if self._call is not None:
                self._call.cancel()

    async def aclose(self) -> None:
        """End the call, if it is still going on, and let go of the source."""
        self._is_over = True
        await self._end_call()
        await self._delivery.aclose()

    async def transcript(self) -> Transcript:
        """Read to the end, and give everything that was still to come as one transcript."""
        return self._transcript([segment async for segment in self])

    async def _next_segment(self) -> Segment:
        while True:
            if self._call is None:
                self._begin_call()
            message = await self._next_message()
            if message is None:
                continue
            item = self._take(message)
            if isinstance(item, Segment):
                return item
            if item is not None:
                await self._tell(item)
            if self._recovery.wants_to_move:
                self._recovery.next_server()
                await self._end_call()

    def _begin_call(self) -> None:
        recovery = self._recovery
        self._delivery.check(recovery.acknowledged)
        opening = recovery.opening(self._details.opening)
        self._call = self._start(self._deadline.left_s(), recovery.server, recovery.metadata())
        # Not its read(): that gives nothing more once a write failed, though there may be answers to read.
        self._answers = aiter(self._call)
        self._sending = asyncio.create_task(self._delivery.send(self._call, opening, recovery.acknowledged))
        # A write that fails because the call has just ended would put an error of gRPC's own in the place of the
        # server's: once the call has ended, nothing more may be written.
        self._call.add_done_callback(functools.partial(_cancel, self._sending))

    async def _end_call(self) -> None:
        if self._call is not None:
            self._call.cancel()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        self._call = self._sending = None

    async def _next_message(self) -> Any:
        """The next answer; None where the call was lost and another one is to be made."""
        try:
            async with asyncio.timeout(self._recovery.silence_s()):
                return await anext(self._answers)
        except StopAsyncIteration:
            self._check_finished()
            raise
        except TimeoutError:
            silent = RpcStatus(grpc.StatusCode.UNAVAILABLE, "the server has gone silent", None)
            return await self._take_up_again(silent, was_silent=True)
        except grpc.RpcError:
            if self._delivery.failure is not None:
                raise self._delivery.failure from None
            status = await _server_status(self._call)
        except asyncio.CancelledError:
            _raise_if_task_is_cancelled()
            raise self._delivery.failure or CallCancelledError(
                "the client was closed during the call",
                code=grpc.StatusCode.CANCELLED,
                request_id=self.request_id,
            ) from None
        if status.code is not grpc.StatusCode.OK:
            return await self._take_up_again(status)
        self._check_finished()
        raise StopAsyncIteration

    async def _take_up_again(self, status: RpcStatus, *, was_silent: bool = False) -> None:
        """Wait until the next call may be made; raise the error where there is to be none."""
        failure = self._delivery.failure or self._error_of(status, self.request_id, self._recovery.server)
        if self._delivery.failure is not None or self._is_over:
            raise failure from None
        pause_s = self._recovery.pause_after(status, was_silent=was_silent)
        if pause_s is None or self._deadline.is_within(pause_s):
            raise failure from None
        await self._end_call()
        await self._tell(Interrupted(str(failure), pause_s, self._recovery.final_until_s))
        await asyncio.sleep(pause_s)

    async def _tell(self, event: Event) -> None:
        if self._details.on_event is not None:
            answer = self._details.on_event(event)
            if inspect.isawaitable(answer):
                await answer


async def _server_status(call: Any) -> RpcStatus:
    """The status that the server ended the call with, which may be OK.

    When a write fails because the call has ended, grpc.aio first reports an error of its own; the server's status
    takes its place a moment later (seen with grpcio 1.85; its ``set_internal_error``).
    """
    end = time.monotonic() + SETTLE_S
    # gRPC tells of no second status, hence no event to wait for.
    while await call.details() == WRITE_FAILED and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return RpcStatus(await call.code(), await call.details(), await call.trailing_metadata())


def _cancel(task: asyncio.Task[None], _call: Any) -> None:
    task.cancel()


def _raise_if_task_is_cancelled() -> None:
    """Pass a ``CancelledError`` on, if it was meant for this task; gRPC raises it too when a call is cancelled."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise  # noqa: PLE0704 - only called where an exception is being handled
