"""The asyncio client."""

from __future__ import annotations

import asyncio
import inspect
import time
import weakref
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Self

import grpc
from grpc import aio

from gorggle._base_client import ClientBase
from gorggle._protobuf import encode
from gorggle._protobuf.encode import RecognitionOptions
from gorggle._transport import calls
from gorggle._transport.async_sender import AsyncMediaSender, to_async_iterator
from gorggle._transport.calls import StreamCall, T, UnaryCall
from gorggle._transport.receiver import StreamReceiver
from gorggle._transport.status_mapping import RpcStatus
from gorggle.errors import CallCancelledError, DeadlineError, GorggleError, UnavailableError
from gorggle.events import Event
from gorggle.results import Segment, Transcript
from gorggle.server_info import Model, ServerInfo
from gorggle.sources import Media
from gorggle.v1 import lip_reading_pb2_grpc

# Details that grpc.aio reports after a failed write, and how long to wait for the server's own status.
WRITE_FAILED_DETAILS = "Internal error from Core"
STATUS_TIMEOUT_S = 1.0


class AsyncClient(ClientBase["AsyncTranscriptionStream", Coroutine[Any, Any, Transcript]]):
    """An asyncio client, for one event loop.

    ::

        async with gorggle.AsyncClient("127.0.0.1:50051") as client:
            async for segment in client.transcribe("clip.mp4"):
                print(segment.start_s, segment.speaker, segment.text)
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections and cancel active calls."""
        self._is_closed = True
        # Closing a grpc.aio channel does not cancel every awaited call (seen with grpcio 1.81).
        for call in tuple(self._calls):
            call.cancel()
        for channel in self._channels.values():
            await channel.close()

    async def models(self) -> list[Model]:
        """Return the server's models, the default model first."""
        models, token = await self._call_unary(calls.list_models_call(""), self._unary_timeout_s)
        while token:
            page, token = await self._call_unary(calls.list_models_call(token), self._unary_timeout_s)
            models += page
        return models

    async def model(self, name: str | None = None) -> Model:
        """Return the description of a model; default: the server's default model.

        Raises:
            NotFoundError: the server has no such model.
        """
        return await self._call_unary(calls.get_model_call(name), self._unary_timeout_s)

    async def server_info(self) -> ServerInfo:
        """Return the server's version, limits and load."""
        return await self._call_unary(calls.GET_SERVER_INFO, self._unary_timeout_s)

    async def wait_until_ready(self, timeout_s: float = 60.0) -> ServerInfo:
        """Wait until the server is reachable and has loaded its models.

        Raises:
            UnavailableError: it is not ready in time.
        """
        last: GorggleError | None = None
        for attempt_timeout_s, backoff_s in calls.iter_attempts(timeout_s):
            try:
                return await self._call_unary(calls.GET_SERVER_INFO, attempt_timeout_s)
            except (UnavailableError, DeadlineError) as error:
                last = error
            await asyncio.sleep(backoff_s)
        raise self._create_not_ready_error(timeout_s, last)

    # --------------------------------------------------------------------------------------------------- mechanics

    def _init_channels(self) -> None:
        # Channels are created later: they belong to an event loop, and none may be running yet.
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
            self._channels[server] = self._connections[server].create_channel(aio)
        return lip_reading_pb2_grpc.LipReadingStub(self._channels[server])

    async def _call_unary(self, unary_call: UnaryCall[T], timeout_s: float | None) -> T:
        servers = self._order_servers()
        for server in servers:
            try:
                answer = await self._call_server(unary_call, timeout_s, server)
            except UnavailableError:
                if server == servers[-1]:
                    raise
                continue
            self._first_server = server
            return answer
        raise AssertionError("there is at least one server")

    async def _call_server(self, unary_call: UnaryCall[T], timeout_s: float | None, server: int) -> T:
        method = getattr(self._stub(server), unary_call.method)
        call = method(unary_call.request, timeout=timeout_s, metadata=self._connections[server].metadata)
        self._calls.add(call)
        try:
            return unary_call.parse_response(await call)
        except grpc.RpcError as error:
            raise self._map_error(RpcStatus.from_error(error), server=server) from None
        except asyncio.CancelledError:
            _raise_if_task_is_cancelled()
            raise _create_closed_error() from None

    def _create_stream(self, call: StreamCall) -> AsyncTranscriptionStream:
        return AsyncTranscriptionStream(call)

    def _start_stream(self, *arguments: Any) -> Any:
        call = super()._start_stream(*arguments)
        self._calls.add(call)
        return call

    async def _recognize(
        self, options: RecognitionOptions, media: Media, timeout_s: float | None
    ) -> Transcript:
        messages = [message async for message in to_async_iterator(media.messages)]
        request = encode.encode_clip_request(options, messages)
        return await self._call_unary(calls.recognize_call(request, media.name), timeout_s)


class AsyncTranscriptionStream(StreamReceiver, AsyncIterator[Segment]):
    """Asynchronous iterator over the segments of one stream; returned by ``AsyncClient.transcribe``.

    Its attributes describe the stream so far; see ``StreamReceiver``. To stop early, ``aclose`` it or use it in an
    ``async with`` statement: the call is cancelled. Synchronous sources are read in other threads, so that they do not
    block the event loop; sources that may block forever should be asynchronous.
    """

    def __init__(self, call: StreamCall) -> None:
        self._delivery = AsyncMediaSender(call.media, call.replay_buffer_bytes, call.heartbeat_interval_s)
        super().__init__(call, self._delivery)
        self._responses: AsyncIterator[Any]
        self._send_task: asyncio.Task[None] | None = None
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Segment:
        if self._is_closed:
            raise StopAsyncIteration
        try:
            return await self._next_segment()
        except BaseException:
            await self.aclose()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._send_task is not None and not self._send_task.get_loop().is_closed():
            self._send_task.cancel()
            self._delivery.drop()
            if self._call is not None:
                self._call.cancel()

    async def aclose(self) -> None:
        """Cancel the call, if it is active, and close the source."""
        self._is_closed = True
        await self._end_call()
        await self._delivery.aclose()

    async def transcript(self) -> Transcript:
        """Read to the end, and return the remaining segments as one transcript."""
        return self._build_transcript([segment async for segment in self])

    async def _next_segment(self) -> Segment:
        while True:
            if self._call is None:
                self._start_call()
            message = await self._next_message()
            if message is None:
                continue
            item = self._handle_message(message)
            if isinstance(item, Segment):
                return item
            if item is not None:
                await self._notify(item)
            if self._resume_policy.should_switch_server:
                self._resume_policy.next_server()
                await self._end_call()

    def _start_call(self) -> None:
        recovery = self._resume_policy
        self._delivery.check_replayable(recovery.acknowledged)
        opening = recovery.build_first_request(self._stream_call.first_request)
        self._open_call()
        # Not read(): it returns nothing after a failed write, although responses may be left.
        self._responses = aiter(self._call)
        sending = self._delivery.send(self._call, opening, recovery.acknowledged)
        task = self._send_task = asyncio.create_task(sending)
        # Stop writing when the call ends: a failed write would replace the server's status with gRPC's own
        # error.
        self._call.add_done_callback(lambda _call: task.cancel())

    async def _end_call(self) -> None:
        if self._call is not None:
            self._call.cancel()
        if self._send_task is not None:
            self._send_task.cancel()
            await asyncio.wait([self._send_task])
        self._call = self._send_task = None

    async def _next_message(self) -> Any:
        """Return the next response; None if the call was lost and will be resumed."""
        try:
            async with asyncio.timeout(self._resume_policy.silence_timeout_s()):
                return await anext(self._responses)
        except StopAsyncIteration:
            self._check_finished()
            raise
        except TimeoutError:
            silent = RpcStatus(grpc.StatusCode.UNAVAILABLE, "the server stopped responding", None)
            return await self._prepare_resume(silent, was_silent=True)
        except grpc.RpcError:
            if self._delivery.source_error is not None:
                raise self._delivery.source_error from None
            status = await _get_server_status(self._call)
        except asyncio.CancelledError:
            _raise_if_task_is_cancelled()
            raise self._delivery.source_error or _create_closed_error(self.request_id) from None
        if status.code is not grpc.StatusCode.OK:
            return await self._prepare_resume(status)
        self._check_finished()
        raise StopAsyncIteration

    async def _prepare_resume(self, status: RpcStatus, *, was_silent: bool = False) -> None:
        """Wait until the next call can be made; raise the error if the stream cannot be resumed."""
        _, interruption = self._plan_resume(status, was_silent=was_silent, is_closed=self._is_closed)
        await self._end_call()
        await self._notify(interruption)
        await asyncio.sleep(interruption.backoff_s)

    async def _notify(self, event: Event) -> None:
        if self._stream_call.on_event is not None:
            answer = self._stream_call.on_event(event)
            if inspect.isawaitable(answer):
                await answer


async def _get_server_status(call: Any) -> RpcStatus:
    """Return the status that the server ended the call with, which may be OK.

    After a write failed because the call had ended, grpc.aio first reports an error of its own, and the server's status
    a moment later (seen with grpcio 1.85; its ``set_internal_error``).
    """
    end = time.monotonic() + STATUS_TIMEOUT_S
    # gRPC does not signal the second status, so poll.
    while await call.details() == WRITE_FAILED_DETAILS and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return RpcStatus(await call.code(), await call.details(), await call.trailing_metadata())


def _create_closed_error(request_id: str = "") -> CallCancelledError:
    text = "the client was closed during the call"
    return CallCancelledError(text, code=grpc.StatusCode.CANCELLED, request_id=request_id)


def _raise_if_task_is_cancelled() -> None:
    """Re-raise a ``CancelledError`` if this task was cancelled; gRPC raises it for cancelled calls too."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise  # noqa: PLE0704 - only called where an exception is being handled
