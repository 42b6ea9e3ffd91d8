"""The LipReading service: takes calls apart, hands them to sessions, writes what comes back. No thinking here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

from grpc import aio

from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, model_pb2, server_pb2
from gorggle_server.admission.controller import AdmissionController
from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.admission.stream_limiter import StreamLimiter
from gorggle_server.errors import IdleError, NotReadyError, PreconditionError
from gorggle_server.grpc_server import request_decoding, response_encoding
from gorggle_server.grpc_server.clip_source import open_clip
from gorggle_server.grpc_server.interceptors.auth import caller
from gorggle_server.grpc_server.media_receiver import MediaReceiver
from gorggle_server.grpc_server.model_message import encode_model
from gorggle_server.grpc_server.request_decoding import ResumeRequest
from gorggle_server.grpc_server.response_encoding import StreamPosition
from gorggle_server.grpc_server.session_registry import SessionRegistry
from gorggle_server.grpc_server.stream_runner import Stream, StreamExecutor
from gorggle_server.inference.model_registry import ModelRegistry
from gorggle_server.inference.scheduler import InferenceBackend
from gorggle_server.logging_setup import request_id
from gorggle_server.memory import trim_memory
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.settings import ServerSettings
from gorggle_server.streaming.resume_token import ResumeToken
from gorggle_server.timebase import frames_to_seconds
from gorggle_server.types import Event, Finished, Progress, RecognitionOptions, Transcript

if TYPE_CHECKING:
    from gorggle_server.sandbox.pool import DecoderPool

T = TypeVar("T")
Context = aio.ServicerContext[Any, Any]

# Names the session that a call carries on, as `StreamingConfig.resume` does a little later.
SESSION_METADATA = "gorggle-session-id"

# Without a call for so long, a server has time for its memory.
IDLE_TRIM_DELAY_S = 1.0


class LipReadingServicer(lip_reading_pb2_grpc.LipReadingServicer):
    """Answers calls once ``activate`` has given it the models."""

    def __init__(
        self,
        settings: ServerSettings,
        version: str,
        metrics: ServerMetrics,
        decoder_pool: DecoderPool | None = None,
    ) -> None:
        """Prepare to serve; ``decoder_pool`` are processes to decode media in, None decodes on the streams' threads."""
        self._settings, self._version = settings, version
        metrics.track_active_streams(lambda: self._stream_limiter.active_streams)
        self._model_registry: ModelRegistry | None = None
        self._backend: InferenceBackend | None = None
        self._admission: AdmissionController | None = None
        self._started_at = time.monotonic()
        self._stream_limiter = StreamLimiter(
            settings.max_streams, settings.max_streams_per_client, self._schedule_memory_trim
        )
        self._executor = StreamExecutor(settings, metrics, decoder_pool)
        self._sessions = SessionRegistry()

    def activate(
        self, model_registry: ModelRegistry, backend: InferenceBackend, admission: AdmissionController
    ) -> None:
        """From now on answer calls with these models."""
        self._model_registry, self._backend, self._admission = model_registry, backend, admission

    def _schedule_memory_trim(self) -> None:
        # A call that the process's end cut off gives its place back when no loop runs any more.
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_later(IDLE_TRIM_DELAY_S, self._trim_memory_if_idle)

    def _trim_memory_if_idle(self) -> None:
        if not self._stream_limiter.active_streams:
            asyncio.get_running_loop().run_in_executor(None, trim_memory)

    def drain(self, deadline_s: float) -> None:
        """From now on take no new recognition calls; tell those in flight that they may go on for so long."""
        self._stream_limiter.close()
        self._sessions.drain(deadline_s)

    # ------------------------------------------------------------------------------------------------------- calls

    async def StreamingRecognize(  # noqa: N802 - the API's name
        self, request_iterator: AsyncIterator[lip_reading_pb2.StreamingRecognizeRequest], context: Context
    ) -> AsyncIterator[lip_reading_pb2.StreamingRecognizeResponse]:
        """Read a stream; see the API."""
        # Told before the first message, so that a full server can free the place that is to be taken over.
        await self._sessions.supersede(_parse_session_id(context), caller.get())
        with self._stream_limiter.acquire(caller.get()):
            requests = aiter(request_iterator)
            config = _require_config(await self._receive_next(requests))
            options = request_decoding.decode_streaming_config(config, self._models.default, self._settings)
            interval_s = request_decoding.decode_heartbeat_interval_s(config)
            resumption = request_decoding.decode_resume_config(config) or ResumeRequest(
                self._sessions.create_id(), ResumeToken(), {}
            )
            model = self._models[options.model].name
            await self._sessions.supersede(resumption.session_id, caller.get())
            with (
                self._admit_if_live(options) as use,
                self._sessions.attach(resumption.session_id, caller.get()) as call,
            ):
                yield response_encoding.encode_started(
                    request_id.get(), model, resumption.session_id, interval_s
                )
                first_media = asyncio.ensure_future(self._receive_first_media(requests))
                try:
                    while not await _wait_done(first_media, interval_s):
                        yield response_encoding.encode_heartbeat()
                finally:
                    first_media.cancel()
                feed = MediaReceiver(
                    first_media.result(),
                    requests,
                    self._receive_next,
                    resumption.resume_token,
                    live=options.live,
                    media_timeout_s=self._settings.media_timeout_s,
                )
                stream = Stream(
                    media_queue=feed.media_queue,
                    feed=feed.run,
                    resume_state=feed.create_resume_state(resumption.partial_transcripts),
                    max_duration_s=self._settings.max_stream_duration_s,
                    cpu_timer=use,
                )
                feed.on_warning, call.event_queue = stream.event_queue.put, stream.event_queue
                final_until_s = frames_to_seconds(resumption.resume_token.checkpoint.final_end)
                async with contextlib.aclosing(
                    self._executor.run_stream(stream, options, self._ready_backend, interval_s)
                ) as events:
                    async for event in events:
                        feed.handle_event(event)
                        final_until_s = max(final_until_s, _get_final_end_s(event))
                        position = StreamPosition(
                            feed.bytes_received, final_until_s, feed.acknowledged_sequence, feed.resume_token
                        )
                        yield response_encoding.encode_event(event, options, position)

    async def Recognize(  # noqa: N802
        self, request: lip_reading_pb2.RecognizeRequest, context: Context
    ) -> lip_reading_pb2.RecognizeResponse:
        """Read one clip; see the API."""
        with self._stream_limiter.acquire(caller.get()):
            options = request_decoding.decode_recognition_config(
                request.config, self._models.default, self._settings
            )
            self._models[options.model]
            intake, feed = open_clip(
                request, buckets=self._settings.s3_buckets, max_bytes=self._settings.max_spooled_bytes
            )
            transcript = Transcript()
            stream = Stream(intake, feed, max_duration_s=self._settings.max_clip_duration_s)
            async with contextlib.aclosing(
                self._executor.run_stream(stream, options, self._ready_backend)
            ) as events:
                async for event in events:
                    transcript.add(event)
            return response_encoding.encode_recognize_response(transcript, options, request_id.get())

    async def ListModels(  # noqa: N802
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """List the models; see the API."""
        return model_pb2.ListModelsResponse(models=[encode_model(served) for served in self._models])

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.Model:  # noqa: N802
        """Describe one model; see the API."""
        return encode_model(self._models[request.name or self._models.default])

    async def GetServerInfo(  # noqa: N802
        self, request: server_pb2.GetServerInfoRequest, context: Context
    ) -> server_pb2.GetServerInfoResponse:
        """Tell version, limits and load; see the API."""
        limits = self._settings
        return server_pb2.GetServerInfoResponse(
            version=self._version,
            default_model=self._models.default,
            device=limits.device,
            uptime=response_encoding.encode_duration(time.monotonic() - self._started_at),
            limits=server_pb2.ServerLimits(
                max_message_bytes=limits.max_message_bytes,
                max_stream_duration=response_encoding.encode_duration(limits.max_stream_duration_s),
                max_clip_duration=response_encoding.encode_duration(limits.max_clip_duration_s),
                max_spooled_bytes=limits.max_spooled_bytes,
                max_frame_pixels=limits.max_frame_pixels,
                max_speakers=limits.max_speakers,
                max_beam_size=limits.max_beam_size,
                max_idle=response_encoding.encode_duration(limits.idle_timeout_s),
                max_utterance=response_encoding.encode_duration(limits.max_utterance_s),
                max_pause=response_encoding.encode_duration(limits.media_timeout_s),
            ),
            capacity=server_pb2.ServerCapacity(
                max_streams=limits.max_streams, active_streams=self._stream_limiter.active_streams
            ),
        )

    # ----------------------------------------------------------------------------------------------------- mechanics

    @property
    def _models(self) -> ModelRegistry:
        if self._model_registry is None:
            raise NotReadyError("the models are still being loaded: try again in a few seconds")
        return self._model_registry

    @property
    def _ready_backend(self) -> InferenceBackend:
        assert self._backend is not None, "calls are refused until the models are there"
        return self._backend

    def _admit_if_live(self, options: RecognitionOptions) -> contextlib.AbstractContextManager[CpuTimer]:
        """Where a stream is live, its share of the machine; or refuse it at once."""
        assert self._admission is not None, "calls are refused until the models are there"
        if options.live:
            return self._admission.admit_stream(request_id.get())
        return contextlib.nullcontext(CpuTimer())

    async def _receive_next(self, requests: AsyncIterator[T]) -> T | None:
        """The client's next message; None when it has no more."""
        try:
            # Not wait_for, which in Python 3.11 forgets that it was cancelled where a message comes at the same time.
            async with asyncio.timeout(self._settings.idle_timeout_s):
                return await anext(requests)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise IdleError(
                f"nothing came for {self._settings.idle_timeout_s:g} s: send media, or end the stream"
            ) from None

    async def _receive_first_media(
        self, requests: AsyncIterator[lip_reading_pb2.StreamingRecognizeRequest]
    ) -> lip_reading_pb2.StreamingRecognizeRequest | None:
        """The first message that says which kind of media comes."""
        begun_at = time.monotonic()
        while (request := await self._receive_next(requests)) is not None:
            if request.WhichOneof("payload") != "heartbeat":
                break
            if time.monotonic() - begun_at > self._settings.media_timeout_s:
                raise IdleError(
                    f"no media came for {self._settings.media_timeout_s:g} s: send some, or end the stream"
                )
        return request


def _parse_session_id(context: Context) -> str:
    """The session that a call says in its metadata to carry on; empty for none."""
    metadata = context.invocation_metadata() or ()
    return next((str(value) for key, value in metadata if key == SESSION_METADATA), "")


def _require_config(first: lip_reading_pb2.StreamingRecognizeRequest | None) -> config_pb2.StreamingConfig:
    if first is None:
        what = "ended"
    elif first.WhichOneof("payload") != "config":
        what = f"began with {first.WhichOneof('payload') or 'an empty message'}"
    else:
        return first.config
    raise PreconditionError(f"the stream {what}: send the configuration first, then media")


def _get_final_end_s(event: Event) -> float:
    """The media up to which everything is final, as far as an event tells."""
    match event:
        case Progress():
            return event.processed_s
        case Finished():
            return event.duration_s
    return 0.0


async def _wait_done(task: asyncio.Future[T], interval_s: float) -> bool:
    """Whether a task ends within so many seconds; 0: wait for its end."""
    done, _ = await asyncio.wait([task], timeout=interval_s or None)
    return bool(done)
