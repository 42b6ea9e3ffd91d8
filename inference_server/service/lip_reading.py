"""The LipReading service: takes calls apart, hands them to sessions, writes what comes back. No thinking here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from gorggle.v1 import lip_reading_pb2, lip_reading_pb2_grpc, model_pb2, server_pb2
from grpc import aio

from inference_server import s3
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
from inference_server.scheduler import InferenceBackend
from inference_server.service import convert
from inference_server.service.authentication import caller
from inference_server.service.model_card import model_message
from inference_server.session import Session
from inference_server.settings import ServerSettings
from inference_server.transcript import Event, RecognitionOptions, Transcript

if TYPE_CHECKING:
    from inference_server.media.pool import DecoderPool

T = TypeVar("T")
Context = aio.ServicerContext[Any, Any]
Feed = Callable[[], Awaitable[None]]
MediaIntake = BytePipe | Intake[Elementary]

# What may wait for the decoder: enough to keep it busy, little enough that a fast sender feels its pace.
MAX_INTAKE_BYTES = 64 * 1024
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
        self._started_at = time.monotonic()
        self._active = 0
        self._active_of: Counter[str] = Counter()  # calls being served, by caller
        self._draining = False
        self._threads = ThreadPoolExecutor(settings.max_streams, thread_name_prefix="stream")

    def serve(self, catalog: ModelCatalog, backend: InferenceBackend) -> None:
        """From now on answer calls with these models."""
        self._catalog, self._backend = catalog, backend

    def drain(self) -> None:
        """From now on take no new recognition calls."""
        self._draining = True

    # ------------------------------------------------------------------------------------------------------- calls

    async def StreamingRecognize(  # noqa: N802 - the API's name
        self, request_iterator: AsyncIterator[lip_reading_pb2.StreamingRecognizeRequest], context: Context
    ) -> AsyncIterator[lip_reading_pb2.StreamingRecognizeResponse]:
        """Read a stream; see the API."""
        with self._place():
            requests = aiter(request_iterator)
            first = await self._next(requests)
            if first is None or first.WhichOneof("payload") != "config":
                what = (
                    "ended"
                    if first is None
                    else f"began with {first.WhichOneof('payload') or 'an empty message'}"
                )
                raise PreconditionError(f"the stream {what}: send the configuration first, then media")
            options = convert.streaming_options_from(first.config, self._models.default, self._settings)
            model = self._models[options.model].name
            yield convert.started_response(request_id.get(), model)
            media = await self._next(requests)
            feed = _MediaFeed(media, requests, self._next)
            limit_s = self._settings.max_stream_duration_s
            running = self._events(feed.intake, feed.run, options, limit_s)
            async with contextlib.aclosing(running) as events:
                async for event in events:
                    yield convert.streaming_response(event, options, feed.bytes_received)

    async def Recognize(  # noqa: N802
        self, request: lip_reading_pb2.RecognizeRequest, context: Context
    ) -> lip_reading_pb2.RecognizeResponse:
        """Read one clip; see the API."""
        with self._place():
            options = convert.options_from(request.config, self._models.default, self._settings)
            self._models[options.model]
            intake, feed = self._clip(request)
            transcript = Transcript()
            limit_s = self._settings.max_clip_duration_s
            running = self._events(intake, feed, options, limit_s)
            async with contextlib.aclosing(running) as events:
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

    async def _events(
        self, intake: MediaIntake, feed: Feed, options: RecognitionOptions, limit_s: float
    ) -> AsyncGenerator[Event, None]:
        """Run a session on a thread while ``feed`` fills its intake; yield what it says."""
        assert self._backend is not None, "calls are refused until the models are there"
        outbox: Outbox[Event] = Outbox()
        perception = perception_of(intake, options, self._settings, limit_s, self._decoders, request_id.get())
        session = Session(perception, options, self._backend, outbox.put, outbox.wait_for_room)
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, _run_to_outbox, session, outbox)
        feeding = asyncio.ensure_future(_feed_to_end(feed, intake))
        try:
            async for event in outbox:
                self._measurements.event(event)
                yield event
        finally:
            session.stop()
            intake.abort(CallerGoneError())
            outbox.close()
            feeding.cancel()
            # The place is given back only when the thread is free again.
            await asyncio.wait([running, feeding])

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


class _MediaFeed:
    """Moves a stream's media messages into its intake; the first one decides which kind they are."""

    def __init__(
        self,
        first: lip_reading_pb2.StreamingRecognizeRequest | None,
        requests: AsyncIterator[lip_reading_pb2.StreamingRecognizeRequest],
        read_next: Callable[[AsyncIterator[Any]], Awaitable[Any]],
    ) -> None:
        self.is_elementary = first is not None and first.WhichOneof("payload") in ("mouth_crops", "pcm")
        self.pipe, self.crops_and_sound = BytePipe(MAX_INTAKE_BYTES), Intake[Elementary](MAX_INTAKE_BYTES)
        self.bytes_received = 0
        self._first, self._requests, self._read_next = first, requests, read_next

    @property
    def intake(self) -> MediaIntake:
        """Where this stream's media goes."""
        return self.crops_and_sound if self.is_elementary else self.pipe

    async def run(self) -> None:
        """Feed to the end of the stream."""
        request = self._first
        while request is not None:
            await self._put(request)
            request = await self._read_next(self._requests)

    async def _put(self, request: lip_reading_pb2.StreamingRecognizeRequest) -> None:
        kind = request.WhichOneof("payload")
        if kind == "config":
            raise InvalidRequestError("the configuration came twice: it belongs into the first message alone")
        if kind is None:
            raise InvalidRequestError("a message is empty: send media, mouth_crops or pcm")
        if (kind != "media") != self.is_elementary:
            raise InvalidRequestError(
                f"{kind} came in a stream of {'crops and sound' if self.is_elementary else 'container bytes'}: "
                "a stream carries one or the other"
            )
        size = request.ByteSize()
        self.bytes_received += size
        if kind == "media":
            await self.pipe.write_async(request.media)
        elif kind == "mouth_crops":
            await self.crops_and_sound.put(convert.crops_from(request.mouth_crops), size)
        else:
            await self.crops_and_sound.put(convert.sound_from(request.pcm), size)


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


def _run_to_outbox(session: Session, outbox: Outbox[Event]) -> None:
    """Run a session on this thread; its end, good or bad, closes the outbox."""
    try:
        session.run()
    except CallerGoneError:
        outbox.close()
    except Exception as error:  # the border of the thread: raised again where the outbox is read
        outbox.close(error)
    else:
        outbox.close()
