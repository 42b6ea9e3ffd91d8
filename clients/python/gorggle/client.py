"""The synchronous client: calls block the calling thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import grpc

from gorggle._base_client import ClientBase
from gorggle._protobuf import encode
from gorggle._protobuf.encode import RecognitionOptions
from gorggle._transport import calls
from gorggle._transport.call_watchdog import CallWatchdog
from gorggle._transport.calls import StreamCall, T, UnaryCall
from gorggle._transport.receiver import StreamReceiver
from gorggle._transport.sender import MediaSender, to_iterator
from gorggle._transport.status_mapping import RpcStatus
from gorggle.errors import DeadlineError, GorggleError, UnavailableError
from gorggle.events import Event
from gorggle.results import Segment, Transcript
from gorggle.server_info import Model, ServerInfo
from gorggle.sources import Media
from gorggle.v1 import lip_reading_pb2_grpc


class Client(ClientBase["TranscriptionStream", Transcript]):
    """A synchronous client. It is thread-safe.

    ::

        with gorggle.Client("127.0.0.1:50051") as client:
            for segment in client.transcribe("clip.mp4"):
                print(segment.start_s, segment.speaker, segment.text)
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and cancel active calls."""
        self._is_closed = True
        for channel in self._channels.values():
            channel.close()

    def models(self) -> list[Model]:
        """Return the server's models, the default model first."""
        models, token = self._call_unary(calls.list_models_call(""), self._unary_timeout_s)
        while token:
            page, token = self._call_unary(calls.list_models_call(token), self._unary_timeout_s)
            models += page
        return models

    def model(self, name: str | None = None) -> Model:
        """Return the description of a model; default: the server's default model.

        Raises:
            NotFoundError: the server has no such model.
        """
        return self._call_unary(calls.get_model_call(name), self._unary_timeout_s)

    def server_info(self) -> ServerInfo:
        """Return the server's version, limits and load."""
        return self._call_unary(calls.GET_SERVER_INFO, self._unary_timeout_s)

    def wait_until_ready(self, timeout_s: float = 60.0) -> ServerInfo:
        """Wait until the server is reachable and has loaded its models.

        Raises:
            UnavailableError: it is not ready in time.
        """
        last: GorggleError | None = None
        for attempt_timeout_s, backoff_s in calls.iter_attempts(timeout_s):
            try:
                return self._call_unary(calls.GET_SERVER_INFO, attempt_timeout_s)
            except (UnavailableError, DeadlineError) as error:
                last = error
            time.sleep(backoff_s)
        raise self._create_not_ready_error(timeout_s, last)

    # --------------------------------------------------------------------------------------------------- mechanics

    def _init_channels(self) -> None:
        self._channels: dict[int, grpc.Channel] = {}
        self._channel_lock = threading.Lock()

    def _stub(self, server: int) -> Any:
        self._check_open()
        with self._channel_lock:
            if server not in self._channels:
                self._channels[server] = self._connections[server].create_channel(grpc)
            return lip_reading_pb2_grpc.LipReadingStub(self._channels[server])

    def _call_unary(self, unary_call: UnaryCall[T], timeout_s: float | None) -> T:
        servers = self._order_servers()
        for server in servers:
            method = getattr(self._stub(server), unary_call.method)
            metadata = self._connections[server].metadata
            try:
                answer = method(unary_call.request, timeout=timeout_s, metadata=metadata)
            except grpc.RpcError as error:
                failure = self._map_error(RpcStatus.from_error(error), server=server)
                if server != servers[-1] and isinstance(failure, UnavailableError):
                    continue
                raise failure from None
            self._first_server = server
            return unary_call.parse_response(answer)
        raise AssertionError("there is at least one server")

    def _create_stream(self, call: StreamCall) -> TranscriptionStream:
        if call.media.reopen is None:
            to_iterator(call.media.messages)
        return TranscriptionStream(call)

    def _recognize(self, options: RecognitionOptions, media: Media, timeout_s: float | None) -> Transcript:
        request = encode.encode_clip_request(options, to_iterator(media.messages))
        return self._call_unary(calls.recognize_call(request, media.name), timeout_s)


class TranscriptionStream(StreamReceiver, Iterator[Segment]):
    """Iterator over the segments of one stream; returned by ``Client.transcribe``.

    Its attributes describe the stream so far; see ``StreamReceiver``. To stop early, ``close`` it, use it in a ``with``
    statement, or drop it: the call is cancelled. Sources other than files are read in a background thread.
    """

    def __init__(self, call: StreamCall) -> None:
        self._delivery = MediaSender(call.media, call.replay_buffer_bytes, call.heartbeat_interval_s)
        super().__init__(call, self._delivery)
        self._watchdog = CallWatchdog()
        self._closing = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Segment:
        if self._closing.is_set():
            raise StopIteration
        try:
            return self._next_segment()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the call, if it is active. May be called from any thread."""
        self._closing.set()
        if self._call is not None:
            self._call.cancel()
        self._delivery.close()
        self._watchdog.close()

    def transcript(self) -> Transcript:
        """Read to the end, and return the remaining segments as one transcript."""
        return self._build_transcript(list(self))

    def _next_segment(self) -> Segment:
        while True:
            if self._call is None:
                self._start_call()
            try:
                with self._watchdog.guard(self._call, self._resume_policy.silence_timeout_s()):
                    message = next(self._call)
            except grpc.RpcError as error:
                self._prepare_resume(RpcStatus.from_error(error))
                continue
            except StopIteration:
                self._check_finished()
                raise
            item = self._handle_message(message)
            if isinstance(item, Segment):
                return item
            if item is not None:
                self._notify(item)
            if self._resume_policy.should_switch_server:
                self._resume_policy.next_server()
                self._end_call()

    def _start_call(self) -> None:
        recovery, sending = self._resume_policy, self._delivery.start_turn()
        self._delivery.check_replayable(recovery.acknowledged)
        opening = recovery.build_first_request(self._stream_call.first_request)
        self._open_call(self._delivery.requests(opening, recovery.acknowledged, sending))
        sending.call.set_result(self._call)
        if self._closing.is_set():  # meanwhile, by another thread
            self._call.cancel()

    def _end_call(self) -> None:
        self._call.cancel()
        self._call = None

    def _prepare_resume(self, status: RpcStatus) -> None:
        """Wait until the next call can be made; raise the error if the stream cannot be resumed."""
        failure, interruption = self._plan_resume(
            status, was_silent=self._watchdog.timed_out, is_closed=self._closing.is_set()
        )
        self._end_call()
        self._notify(interruption)
        if self._closing.wait(interruption.backoff_s):
            raise failure from None

    def _notify(self, event: Event) -> None:
        if self._stream_call.on_event is not None:
            self._stream_call.on_event(event)
