"""gRPC servicer: decodes requests, runs recognition sessions, encodes responses. Contains no recognition logic."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from grpc import aio

from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, model_pb2, server_pb2
from gorggle_server.admission.controller import AdmissionController
from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.admission.stream_limiter import StreamLimiter
from gorggle_server.errors import IdleError, InvalidRequestError, NotReadyError
from gorggle_server.events import Event, Finished, MediaInfo, Progress, Transcript
from gorggle_server.grpc_server import request_decoding, response_encoding
from gorggle_server.grpc_server.clip_source import open_clip
from gorggle_server.grpc_server.interceptors.auth import caller
from gorggle_server.grpc_server.media_receiver import MediaReceiver
from gorggle_server.grpc_server.model_message import encode_model
from gorggle_server.grpc_server.request_decoding import ResumeRequest
from gorggle_server.grpc_server.response_encoding import StreamPosition
from gorggle_server.grpc_server.session_registry import ActiveCall, SessionRegistry
from gorggle_server.grpc_server.stream_runner import Stream, StreamExecutor
from gorggle_server.inference.model_registry import ModelRegistry
from gorggle_server.inference.scheduler import InferenceBackend
from gorggle_server.input_format import frames_to_seconds
from gorggle_server.logging_setup import request_id
from gorggle_server.memory import trim_memory
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.recognition_options import Modality, RecognitionOptions
from gorggle_server.settings import AUTO_AUDIO_MODEL, NO_AUDIO_MODEL, ServerSettings
from gorggle_server.streaming.resume_token import ResumeToken

if TYPE_CHECKING:
    from gorggle_server.sandbox.pool import DecoderPool

T = TypeVar("T")
Context = aio.ServicerContext[Any, Any]
StreamRequest = lip_reading_pb2.StreamingRecognizeRequest
StreamResponse = lip_reading_pb2.StreamingRecognizeResponse

# Metadata with the session that a call resumes: known before the first message, unlike `StreamingConfig.resume`.
SESSION_METADATA = "gorggle-session-id"

# Idle time after the last call before memory is trimmed.
IDLE_TRIM_DELAY_S = 1.0

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000


@dataclass(frozen=True)
class _StreamSettings:
    """Decoded configuration of a stream: its options, heartbeat interval (0: none) and session."""

    options: RecognitionOptions
    heartbeat_interval_s: float
    resume: ResumeRequest


class LipReadingServicer(lip_reading_pb2_grpc.LipReadingServicer):
    """Serves calls once ``activate`` has set the models; until then, calls end with NotReadyError."""

    def __init__(
        self,
        settings: ServerSettings,
        version: str,
        metrics: ServerMetrics,
        decoder_pool: DecoderPool | None = None,
    ) -> None:
        """Prepare to serve. ``decoder_pool`` are the sandboxed decoders; None decodes on the streams' threads."""
        self._settings, self._version = settings, version
        metrics.active_streams.set_function(lambda: self._stream_limiter.active_streams)
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
        """Serve calls with these models from now on."""
        self._model_registry, self._backend, self._admission = model_registry, backend, admission

    def _schedule_memory_trim(self) -> None:
        # At process exit, a call's slot may be released when the loop has already stopped.
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_later(IDLE_TRIM_DELAY_S, self._trim_memory_if_idle)

    def _trim_memory_if_idle(self) -> None:
        if not self._stream_limiter.active_streams:
            asyncio.get_running_loop().run_in_executor(None, trim_memory)

    def drain(self, deadline_s: float) -> None:
        """Refuse new recognition calls, and notify active streams that they end after ``deadline_s``."""
        self._stream_limiter.close()
        self._sessions.drain(deadline_s)

    # ------------------------------------------------------------------------------------------------------- calls

    async def StreamingRecognize(  # noqa: N802 - the API's name
        self, request_iterator: AsyncIterator[StreamRequest], context: Context
    ) -> AsyncIterator[StreamResponse]:
        """Recognize a stream; see the API."""
        # Before a slot is acquired, so that a full server can free the slot of the call that is superseded.
        await self._sessions.supersede(_parse_session_id(context), caller.get())
        with self._stream_limiter.acquire(caller.get()):
            requests = aiter(request_iterator)
            stream = self._decode_stream_settings(_require_config(await self._receive_next(requests)))
            session_id = stream.resume.session_id
            await self._sessions.supersede(session_id, caller.get())
            with (
                self._admit_if_live(stream.options) as cpu_timer,
                self._sessions.attach(session_id, caller.get()) as call,
            ):
                yield response_encoding.encode_started(
                    request_id.get(), stream.options, session_id, stream.heartbeat_interval_s
                )
                async with contextlib.aclosing(
                    self._recognize_stream(requests, stream, call, cpu_timer)
                ) as responses:
                    async for response in responses:
                        yield response

    async def Recognize(  # noqa: N802
        self, request: lip_reading_pb2.RecognizeRequest, context: Context
    ) -> lip_reading_pb2.RecognizeResponse:
        """Recognize one clip; see the API."""
        with self._stream_limiter.acquire(caller.get()):
            options = request_decoding.decode_recognition_config(
                request.config, self._models.default, self._settings
            )
            options = self._bind_model(request.config, options)
            media_queue, feed = open_clip(
                request, buckets=self._settings.s3_buckets, max_bytes=self._settings.max_spooled_bytes
            )
            transcript = Transcript()
            stream = Stream(media_queue, feed, max_duration_s=self._settings.max_clip_duration_s)
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
        models = list(self._models)
        start = _parse_page_token(request.page_token, len(models))
        if request.page_size < 0:
            raise InvalidRequestError(
                f"page_size is {request.page_size}: give a positive number, or 0 for the default",
                field="page_size",
            )
        end = start + min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        return model_pb2.ListModelsResponse(
            models=[encode_model(served) for served in models[start:end]],
            next_page_token=str(end) if end < len(models) else "",
        )

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.Model:  # noqa: N802
        """Describe one model; see the API."""
        return encode_model(self._models[request.name or self._models.default])

    async def GetServerInfo(  # noqa: N802
        self, request: server_pb2.GetServerInfoRequest, context: Context
    ) -> server_pb2.GetServerInfoResponse:
        """Return version, limits and load; see the API."""
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
                idle_timeout=response_encoding.encode_duration(limits.idle_timeout_s),
                media_timeout=response_encoding.encode_duration(limits.media_timeout_s),
                max_utterance=response_encoding.encode_duration(limits.max_utterance_s),
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
        assert self._backend is not None, "calls are refused until the models are loaded"
        return self._backend

    def _bind_model(
        self, config: config_pb2.RecognitionConfig, options: RecognitionOptions
    ) -> RecognitionOptions:
        """Check that the requested model exists and supports what is requested; add what it reads to the options."""
        description = self._models[options.model].description
        request_decoding.check_model_support(config, options, description)
        open_models = (
            model.name
            for model in self._models
            if model.description.has_open_vocabulary
            and (model.description.model_input.uses_lips or options.modality is not Modality.VIDEO_ONLY)
        )
        audio_model = self._select_audio_model(config, options)
        return dataclasses.replace(
            options,
            audio_model=audio_model,
            languages=self._select_languages(config, options.model, audio_model),
            model_input=description.model_input,
            has_open_vocabulary=description.has_open_vocabulary,
            open_vocabulary_models=tuple(open_models),
        )

    def _select_audio_model(self, config: config_pb2.RecognitionConfig, options: RecognitionOptions) -> str:
        """Return the name of the second model of a call; empty for none."""
        description = self._models[options.model].description
        can_combine = description.model_input.uses_lips and options.modality is not Modality.VIDEO_ONLY
        requested = config.audio_model or self._settings.audio_model
        if requested == NO_AUDIO_MODEL or (not can_combine and not config.audio_model):
            return ""
        if requested == AUTO_AUDIO_MODEL:
            return self._models.find_audio_model(description) if can_combine else ""
        if not config.audio_model:
            return requested
        second = self._models[config.audio_model].description
        request_decoding.check_audio_model(config, options, second, can_combine=can_combine)
        return config.audio_model

    def _select_languages(
        self, config: config_pb2.RecognitionConfig, model: str, audio_model: str
    ) -> tuple[str, ...]:
        """Return the languages that a model with several is to choose from; empty for all.

        A second model recognizes the languages of the first one.
        """
        first = self._models[model].description.languages
        known = self._models[audio_model].description.languages if audio_model else first
        # Windows with equal options are batched: where there is no choice, requests do not differ.
        if len(known) < 2:
            return ()
        requested = list(config.language_codes) or (first if audio_model else ())
        return request_decoding.select_languages(requested, known)

    def _decode_stream_settings(self, config: config_pb2.StreamingConfig) -> _StreamSettings:
        options = request_decoding.decode_streaming_config(config, self._models.default, self._settings)
        return _StreamSettings(
            self._bind_model(config.recognition, options),
            request_decoding.decode_heartbeat_interval_s(config),
            request_decoding.decode_resume_config(config)
            # A new session, with an id that cannot be guessed.
            or ResumeRequest(uuid.uuid4().hex, ResumeToken(), {}),
        )

    def _admit_if_live(self, options: RecognitionOptions) -> contextlib.AbstractContextManager[CpuTimer]:
        """Reserve capacity for a live stream, or refuse it."""
        assert self._admission is not None, "calls are refused until the models are loaded"
        if options.live:
            return self._admission.admit_stream(request_id.get())
        return contextlib.nullcontext(CpuTimer())

    async def _recognize_stream(
        self,
        requests: AsyncIterator[StreamRequest],
        settings: _StreamSettings,
        call: ActiveCall,
        cpu_timer: CpuTimer,
    ) -> AsyncGenerator[StreamResponse, None]:
        """Receive the media of a stream and yield the responses to it."""
        interval_s, options = settings.heartbeat_interval_s, settings.options
        first_media = asyncio.ensure_future(self._receive_first_media(requests))
        call.watch_first_media(first_media)
        try:
            while not (await asyncio.wait([first_media], timeout=interval_s or None))[0]:
                yield StreamResponse(heartbeat=lip_reading_pb2.Heartbeat())
        finally:
            first_media.cancel()
        call.raise_if_ended()
        receiver = MediaReceiver(
            first_media.result(),
            requests,
            self._receive_next,
            settings.resume.resume_token,
            options,
            self._settings,
        )
        stream = Stream(
            media_queue=receiver.media_queue,
            feed=receiver.run,
            resume_state=receiver.create_resume_state(settings.resume.partial_transcripts),
            max_duration_s=self._settings.max_stream_duration_s,
            cpu_timer=cpu_timer,
        )
        receiver.on_warning, call.event_queue = stream.event_queue.put, stream.event_queue
        final_end_s = frames_to_seconds(settings.resume.resume_token.checkpoint.final_end)
        async with contextlib.aclosing(
            self._executor.run_stream(stream, options, self._ready_backend, interval_s)
        ) as events:
            async for event in events:
                receiver.handle_event(event)
                final_end_s = max(final_end_s, _get_final_end_s(event))
                position = StreamPosition(
                    receiver.bytes_received,
                    final_end_s,
                    receiver.acknowledged_sequence,
                    receiver.resume_token,
                )
                if isinstance(event, MediaInfo) and not receiver.has_container:
                    # The container that the frames were wrapped in is the server's own.
                    event = dataclasses.replace(event, container="", frame_rate_hz=0.0)
                yield response_encoding.encode_event(event, options, position)

    async def _receive_next(self, requests: AsyncIterator[T]) -> T | None:
        """Return the client's next message; None at the end of the stream."""
        try:
            # Not wait_for, which in Python 3.11 loses a cancellation that coincides with a message.
            async with asyncio.timeout(self._settings.idle_timeout_s):
                return await anext(requests)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise IdleError(
                f"no message for {self._settings.idle_timeout_s:g} s: send media or heartbeats, or end the stream"
            ) from None

    async def _receive_first_media(self, requests: AsyncIterator[StreamRequest]) -> StreamRequest | None:
        """Return the first message that is not a heartbeat; None if there is none."""
        started_at = time.monotonic()
        while (request := await self._receive_next(requests)) is not None:
            if request.WhichOneof("payload") != "heartbeat":
                break
            if time.monotonic() - started_at > self._settings.media_timeout_s:
                raise IdleError(
                    f"no media for {self._settings.media_timeout_s:g} s: send media, or end the stream"
                )
        return request


def _parse_session_id(context: Context) -> str:
    """Return the session in the call's metadata; empty if there is none."""
    metadata = context.invocation_metadata() or ()
    return next((str(value) for key, value in metadata if key == SESSION_METADATA), "")


def _parse_page_token(token: str, count: int) -> int:
    """Return the index of a page's first model."""
    if not token:
        return 0
    if not (token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < count):
        raise InvalidRequestError(
            "page_token is unknown: give next_page_token of the previous response", field="page_token"
        )
    return int(token)


def _require_config(first: StreamRequest | None) -> config_pb2.StreamingConfig:
    """Return the configuration in the first message of a stream."""
    if first is None:
        problem = "ended without a message"
    elif first.WhichOneof("payload") != "config":
        problem = f"began with {first.WhichOneof('payload') or 'an empty message'}"
    else:
        return first.config
    raise InvalidRequestError(
        f"the stream {problem}: send the configuration first, then media", field="config"
    )


def _get_final_end_s(event: Event) -> float:
    """Return the end of the media for which an event declares everything final; 0 if it does not."""
    match event:
        case Progress():
            return event.processed_s
        case Finished():
            return event.duration_s
    return 0.0
