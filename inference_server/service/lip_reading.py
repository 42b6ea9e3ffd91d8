"""The LipReading service: takes calls apart, hands them to sessions, writes what comes back. No thinking here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, model_pb2, server_pb2
from grpc import aio

from inference_server import s3
from inference_server.admission import Admission
from inference_server.elementary import Elementary, in_step
from inference_server.errors import (
    IdleError,
    InvalidMediaError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    PreconditionError,
)
from inference_server.intake import CallerGoneError, Intake
from inference_server.logs import request_id
from inference_server.measurements import Measurements
from inference_server.media.pipe import BytePipe
from inference_server.models import ModelCatalog
from inference_server.outbox import Outbox
from inference_server.perception import perception_of
from inference_server.processor_use import ProcessorUse
from inference_server.recognizer import seconds_of
from inference_server.resumption import ResumePoint
from inference_server.scheduler import InferenceBackend, StreamBackend
from inference_server.service import convert
from inference_server.service.authentication import caller
from inference_server.service.convert import Position, Resumption
from inference_server.service.feed import MAX_INTAKE_BYTES, MediaFeed, MediaIntake
from inference_server.service.model_card import model_message
from inference_server.service.observation import StreamObservation
from inference_server.service.sessions import Sessions
from inference_server.session import Resumed, Session
from inference_server.settings import ServerSettings
from inference_server.transcript import Event, Finished, Heartbeat, Progress, RecognitionOptions, Transcript

if TYPE_CHECKING:
    from inference_server.media.pool import DecoderPool

T = TypeVar("T")
Context = aio.ServicerContext[Any, Any]
Feed = Callable[[], Awaitable[None]]

# Names the session that a call carries on, as `StreamingConfig.resume` does a little later.
SESSION_METADATA = "gorggle-session-id"
RETRY_AFTER_S = 2.0


class LipReadingServicer(lip_reading_pb2_grpc.LipReadingServicer):
    """Answers calls once ``serve`` has given it the models."""

    def __init__(
        self,
        settings: ServerSettings,
        version: str,
        measurements: Measurements,
        decoders: DecoderPool | None = None,
    ) -> None:
        """Prepare to serve; ``decoders`` are processes to decode media in, None decodes on the streams' threads."""
        self._settings, self._version, self._decoders = settings, version, decoders
        self._measurements = measurements
        measurements.count_streams(lambda: self._active)
        self._catalog: ModelCatalog | None = None
        self._backend: InferenceBackend | None = None
        self._admission: Admission | None = None
        self._started_at = time.monotonic()
        self._active = 0
        self._active_of: Counter[str] = Counter()  # calls being served, by caller
        self._draining = False
        self._sessions = Sessions()
        self._threads = ThreadPoolExecutor(settings.max_streams, thread_name_prefix="stream")

    def serve(self, catalog: ModelCatalog, backend: InferenceBackend, admission: Admission) -> None:
        """From now on answer calls with these models."""
        self._catalog, self._backend, self._admission = catalog, backend, admission

    def drain(self, deadline_s: float) -> None:
        """From now on take no new recognition calls; tell those in flight that they may go on for so long."""
        self._draining = True
        self._sessions.drain(deadline_s)

    # ------------------------------------------------------------------------------------------------------- calls

    async def StreamingRecognize(  # noqa: N802 - the API's name
        self, request_iterator: AsyncIterator[lip_reading_pb2.StreamingRecognizeRequest], context: Context
    ) -> AsyncIterator[lip_reading_pb2.StreamingRecognizeResponse]:
        """Read a stream; see the API."""
        # Told before the first message, so that a full server can free the place that is to be taken over.
        await self._sessions.supersede(_session_named(context), caller.get())
        with self._place():
            requests = aiter(request_iterator)
            config = _configuration(await self._next(requests))
            options = convert.streaming_options_from(config, self._models.default, self._settings)
            interval_s = convert.heartbeat_interval_s_from(config)
            resumption = convert.resumption_from(config) or Resumption(
                self._sessions.new_id(), ResumePoint(), {}
            )
            model = self._models[options.model].name
            await self._sessions.supersede(resumption.session_id, caller.get())
            with (
                self._room_for(options) as use,
                self._sessions.carried_on(resumption.session_id, caller.get()) as call,
            ):
                yield convert.started_response(request_id.get(), model, resumption.session_id, interval_s)
                first_media = asyncio.ensure_future(self._first_media(requests))
                try:
                    while not await _is_done_within(first_media, interval_s):
                        yield convert.heartbeat_response()
                finally:
                    first_media.cancel()
                feed = MediaFeed(
                    first_media.result(),
                    requests,
                    self._next,
                    resumption.point,
                    live=options.live,
                    max_pause_s=self._settings.max_pause_s,
                )
                stream = _Stream(
                    intake=feed.intake,
                    feed=feed.run,
                    resumed=feed.resumed(resumption.open_texts),
                    limit_s=self._settings.max_stream_duration_s,
                    use=use,
                )
                feed.warn, call.outbox = stream.outbox.put, stream.outbox
                final_until_s = seconds_of(resumption.point.state.final_until)
                async with contextlib.aclosing(self._events(stream, options, interval_s)) as events:
                    async for event in events:
                        feed.acknowledge(event)
                        final_until_s = max(final_until_s, _final_until_s(event))
                        position = Position(
                            feed.bytes_received, final_until_s, feed.acknowledged_sequence, feed.token
                        )
                        yield convert.streaming_response(event, options, position)

    async def Recognize(  # noqa: N802
        self, request: lip_reading_pb2.RecognizeRequest, context: Context
    ) -> lip_reading_pb2.RecognizeResponse:
        """Read one clip; see the API."""
        with self._place():
            options = convert.options_from(request.config, self._models.default, self._settings)
            self._models[options.model]
            intake, feed = self._clip(request)
            transcript = Transcript()
            stream = _Stream(intake, feed, limit_s=self._settings.max_clip_duration_s)
            async with contextlib.aclosing(self._events(stream, options)) as events:
                async for event in events:
                    transcript.add(event)
            return convert.recognize_response(transcript, options, request_id.get())

    async def ListModels(  # noqa: N802
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """List the models; see the API."""
        return model_pb2.ListModelsResponse(models=[model_message(served) for served in self._models])

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.Model:  # noqa: N802
        """Describe one model; see the API."""
        return model_message(self._models[request.name or self._models.default])

    async def GetServerInfo(  # noqa: N802
        self, request: server_pb2.GetServerInfoRequest, context: Context
    ) -> server_pb2.GetServerInfoResponse:
        """Tell version, limits and load; see the API."""
        limits = self._settings
        return server_pb2.GetServerInfoResponse(
            version=self._version,
            default_model=self._models.default,
            device=limits.device,
            uptime=convert.duration_of(time.monotonic() - self._started_at),
            limits=server_pb2.ServerLimits(
                max_message_bytes=limits.max_message_bytes,
                max_stream_duration=convert.duration_of(limits.max_stream_duration_s),
                max_clip_duration=convert.duration_of(limits.max_clip_duration_s),
                max_spooled_bytes=limits.max_spooled_bytes,
                max_frame_pixels=limits.max_frame_pixels,
                max_speakers=limits.max_speakers,
                max_beam_size=limits.max_beam_size,
                max_idle=convert.duration_of(limits.max_idle_s),
                max_utterance=convert.duration_of(limits.max_utterance_s),
                max_pause=convert.duration_of(limits.max_pause_s),
            ),
            capacity=server_pb2.ServerCapacity(max_streams=limits.max_streams, active_streams=self._active),
        )

    # ----------------------------------------------------------------------------------------------------- mechanics

    @property
    def _models(self) -> ModelCatalog:
        if self._catalog is None:
            raise NotReadyError("the models are still being loaded: try again in a few seconds")
        return self._catalog

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Take one of the places for recognition calls, or refuse at once."""
        if self._draining:
            raise NotReadyError("the server is shutting down: send the request to another one")
        if self._active >= self._settings.max_streams:
            raise OverloadedError(
                f"all {self._settings.max_streams} places are taken: try again in {RETRY_AFTER_S:g} s",
                RETRY_AFTER_S,
            )
        name, limit = caller.get(), self._settings.max_streams_per_client
        if limit and self._active_of[name] >= limit:
            raise OverloadedError(
                f"{name} has {limit} streams already, as many as one client may: try again in {RETRY_AFTER_S:g} s",
                RETRY_AFTER_S,
            )
        self._active += 1
        self._active_of[name] += 1
        try:
            yield
        finally:
            self._active -= 1
            self._active_of[name] -= 1
            if not self._active_of[name]:
                del self._active_of[name]

    def _room_for(self, options: RecognitionOptions) -> contextlib.AbstractContextManager[ProcessorUse]:
        """Where a stream is live, its share of the machine; or refuse it at once."""
        assert self._admission is not None, "calls are refused until the models are there"
        if options.live:
            return self._admission.live_stream(request_id.get())
        return contextlib.nullcontext(ProcessorUse())

    async def _next(self, requests: AsyncIterator[T]) -> T | None:
        """The client's next message; None when it has no more."""
        try:
            return await asyncio.wait_for(anext(requests), self._settings.max_idle_s)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise IdleError(
                f"nothing came for {self._settings.max_idle_s:g} s: send media, or end the stream"
            ) from None

    async def _first_media(
        self, requests: AsyncIterator[lip_reading_pb2.StreamingRecognizeRequest]
    ) -> lip_reading_pb2.StreamingRecognizeRequest | None:
        """The first message that says which kind of media comes."""
        begun_at = time.monotonic()
        while (request := await self._next(requests)) is not None:
            if request.WhichOneof("payload") != "heartbeat":
                break
            if time.monotonic() - begun_at > self._settings.max_pause_s:
                raise IdleError(
                    f"no media came for {self._settings.max_pause_s:g} s: send some, or end the stream"
                )
        return request

    async def _events(
        self, stream: _Stream, options: RecognitionOptions, heartbeat_interval_s: float = 0.0
    ) -> AsyncGenerator[Event, None]:
        """Run a session on a thread while its intake is filled; yield what it says."""
        assert self._backend is not None, "calls are refused until the models are there"
        intake, outbox = stream.intake, stream.outbox
        limit_s = stream.limit_s - seconds_of(stream.resumed.first_frame)
        observation = StreamObservation(self._measurements, intake)
        loop = asyncio.get_running_loop()
        # On the stream's thread: the first one loads the landmark model, which takes a while.
        perception = await loop.run_in_executor(
            self._threads,
            perception_of,
            intake,
            options,
            self._settings,
            limit_s,
            self._decoders,
            request_id.get(),
            observation.clock,
            stream.use,
        )
        backend = observation.backend(StreamBackend(self._backend, request_id.get()))
        session = Session(perception, options, backend, outbox.put, outbox.wait_for_room, stream.resumed)
        running = loop.run_in_executor(self._threads, _run_to_outbox, session, outbox, stream.use)
        feeding = asyncio.ensure_future(_feed_to_end(stream.feed, intake))
        beating = asyncio.ensure_future(_beat(outbox, heartbeat_interval_s))
        try:
            async for event in outbox:
                observation.event(event)
                yield event
        finally:
            session.stop()
            intake.abort(CallerGoneError())
            outbox.close()
            feeding.cancel()
            beating.cancel()
            # The place is given back only when the thread is free again.
            try:
                await asyncio.wait([running, feeding, beating])
            finally:
                observation.end()

    def _clip(self, request: lip_reading_pb2.RecognizeRequest) -> tuple[MediaIntake, Feed]:
        """Where a unary request's clip goes, and what moves it there."""
        pipe, crops_and_sound = BytePipe(MAX_INTAKE_BYTES), Intake[Elementary](MAX_INTAKE_BYTES)
        match request.WhichOneof("source"):
            case "content":
                return pipe, lambda: _feed_pieces(pipe, iter([request.content]))
            case "uri":
                pieces = s3.read(self._readable(request.uri), max_bytes=self._settings.max_spooled_bytes)
                return pipe, lambda: _feed_pieces(pipe, pieces)
            case "elementary":
                return crops_and_sound, lambda: _feed_elementary(crops_and_sound, request.elementary)
            case _:
                raise InvalidRequestError("the request holds no clip: set content, uri or elementary")

    def _readable(self, uri: str) -> s3.Address:
        """An address that the operator allows callers to name."""
        address = s3.Address.parse(uri)
        if address.bucket not in self._settings.s3_buckets:
            raise InvalidRequestError(
                f"this server may not read the bucket {address.bucket!r}: "
                "its operator names the allowed ones in GORGGLE_S3_BUCKETS"
            )
        return address


@dataclass(frozen=True)
class _Stream:
    """A session to be run: its media, what moves it there, what was read before, how long it may be, what it takes."""

    intake: MediaIntake
    feed: Feed
    limit_s: float
    resumed: Resumed = field(default_factory=Resumed)
    use: ProcessorUse = field(default_factory=ProcessorUse)
    outbox: Outbox[Event] = field(default_factory=Outbox)


def _session_named(context: Context) -> str:
    """The session that a call says in its metadata to carry on; empty for none."""
    metadata = context.invocation_metadata() or ()
    return next((str(value) for key, value in metadata if key == SESSION_METADATA), "")


def _configuration(first: lip_reading_pb2.StreamingRecognizeRequest | None) -> config_pb2.StreamingConfig:
    if first is None:
        what = "ended"
    elif first.WhichOneof("payload") != "config":
        what = f"began with {first.WhichOneof('payload') or 'an empty message'}"
    else:
        return first.config
    raise PreconditionError(f"the stream {what}: send the configuration first, then media")


def _final_until_s(event: Event) -> float:
    """The media up to which everything is final, as far as an event tells."""
    match event:
        case Progress():
            return event.processed_s
        case Finished():
            return event.duration_s
    return 0.0


async def _is_done_within(task: asyncio.Future[T], interval_s: float) -> bool:
    """Whether a task ends within so many seconds; 0: wait for its end."""
    done, _ = await asyncio.wait([task], timeout=interval_s or None)
    return bool(done)


async def _beat(outbox: Outbox[Event], interval_s: float) -> None:
    """Say that there is nothing new whenever nothing was said for so long; 0: never."""
    while interval_s:
        silent_for_s = outbox.silent_for_s
        if silent_for_s >= interval_s:
            outbox.put(Heartbeat())
            silent_for_s = 0.0
        await asyncio.sleep(interval_s - silent_for_s)


async def _feed_to_end(feed: Feed, intake: MediaIntake) -> None:
    """Feed an intake; what goes wrong reaches the session through it."""
    try:
        await feed()
    except Exception as error:  # the border of the call: the session ends, and the interceptor maps the cause
        intake.abort(error)
    else:
        intake.close()


async def _feed_pieces(pipe: BytePipe, pieces: Iterator[bytes]) -> None:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        await pipe.write_async(piece)


async def _feed_elementary(intake: Intake[Elementary], clip: lip_reading_pb2.ElementaryClip) -> None:
    if not clip.mouth_crops and not clip.HasField("pcm"):
        raise InvalidMediaError("the clip holds neither mouth crops nor sound")
    sound = [convert.sound_from(clip.pcm)] if clip.HasField("pcm") else []
    for piece in in_step([*map(convert.crops_from, clip.mouth_crops), *sound]):
        await intake.put(piece, piece.size_bytes)


def _run_to_outbox(session: Session, outbox: Outbox[Event], use: ProcessorUse) -> None:
    """Run a session on this thread; its end, good or bad, closes the outbox."""
    try:
        with use.of_this_thread():
            session.run()
    except CallerGoneError:
        outbox.close()
    except Exception as error:  # the border of the thread: raised again where the outbox is read
        outbox.close(error)
    else:
        outbox.close()
