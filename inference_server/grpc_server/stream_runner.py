"""Runs sessions: each on a thread, while its media is fed on the event loop and its events are read there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.grpc_server.media_receiver import MediaIntake
from gorggle_server.grpc_server.stream_observer import StreamObserver
from gorggle_server.inference.recognizer import frames_to_seconds
from gorggle_server.inference.scheduler import InferenceBackend, StreamScopedBackend
from gorggle_server.logging_setup import request_id
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.settings import ServerSettings
from gorggle_server.streaming.event_queue import EventQueue
from gorggle_server.streaming.input_queue import ClientDisconnectedError
from gorggle_server.streaming.media_pipeline import create_media_pipeline
from gorggle_server.streaming.session import RecognitionSession, ResumeState
from gorggle_server.types import Event, Heartbeat, RecognitionOptions

if TYPE_CHECKING:
    from gorggle_server.sandbox.pool import DecoderPool

Feed = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Stream:
    """A session to be run.

    Attributes:
        intake: where its media is taken from.
        feed: moves the media there.
        limit_s: how long the media may be.
        resumed: what was read of it before.
        use: is told what processor time it takes.
        outbox: where its events go.
    """

    intake: MediaIntake
    feed: Feed
    limit_s: float
    resumed: ResumeState = field(default_factory=ResumeState)
    use: CpuTimer = field(default_factory=CpuTimer)
    outbox: EventQueue[Event] = field(default_factory=EventQueue)


class StreamExecutor:
    """Runs the sessions of one server.

    Args:
        settings: the server's.
        measurements: what is counted.
        decoders: processes to decode media in; None decodes on the streams' threads.
    """

    def __init__(
        self, settings: ServerSettings, measurements: ServerMetrics, decoders: DecoderPool | None
    ) -> None:
        self._settings, self._measurements, self._decoders = settings, measurements, decoders
        self._threads = ThreadPoolExecutor(settings.max_streams, thread_name_prefix="stream")

    async def events(
        self,
        stream: Stream,
        options: RecognitionOptions,
        backend: InferenceBackend,
        heartbeat_interval_s: float = 0.0,
    ) -> AsyncGenerator[Event, None]:
        """Run a session while its intake is filled; yield what it says. When this ends, its thread is free again."""
        intake, outbox = stream.intake, stream.outbox
        limit_s = stream.limit_s - frames_to_seconds(stream.resumed.first_frame)
        observation = StreamObserver(self._measurements, intake)
        loop = asyncio.get_running_loop()
        perception = create_media_pipeline(
            intake,
            options,
            self._settings,
            limit_s,
            self._decoders,
            request_id.get(),
            observation.clock,
            stream.use,
        )
        backend = observation.backend(StreamScopedBackend(backend, request_id.get()))
        session = RecognitionSession(
            perception, options, backend, outbox.put, outbox.wait_for_capacity, stream.resumed
        )
        running = loop.run_in_executor(self._threads, _run_to_outbox, session, outbox, stream.use)
        feeding = asyncio.ensure_future(_feed_to_end(stream.feed, intake))
        beating = asyncio.ensure_future(_beat(outbox, heartbeat_interval_s))
        try:
            async for event in outbox:
                observation.event(event)
                yield event
        finally:
            session.stop()
            intake.abort(ClientDisconnectedError())
            outbox.close()
            feeding.cancel()
            beating.cancel()
            # The place is given back only when the thread is free again.
            try:
                await asyncio.wait([running, feeding, beating])
            finally:
                observation.end()


async def _beat(outbox: EventQueue[Event], interval_s: float) -> None:
    """Say that there is nothing new whenever nothing was said for so long; 0: never."""
    while interval_s:
        silent_for_s = outbox.idle_time_s
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


def _run_to_outbox(session: RecognitionSession, outbox: EventQueue[Event], use: CpuTimer) -> None:
    """Run a session on this thread; its end, good or bad, closes the outbox."""
    try:
        with use.track_current_thread():
            session.run()
    except ClientDisconnectedError:
        outbox.close()
    except Exception as error:  # the border of the thread: raised again where the outbox is read
        outbox.close(error)
    else:
        outbox.close()
