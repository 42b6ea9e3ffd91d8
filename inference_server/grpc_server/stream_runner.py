"""Runs sessions: each on a thread, while its media is fed on the event loop and its events are read there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.grpc_server.media_receiver import MediaQueue
from gorggle_server.grpc_server.stream_observer import StreamObserver
from gorggle_server.inference.scheduler import InferenceBackend, StreamScopedBackend
from gorggle_server.logging_setup import request_id
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.settings import ServerSettings
from gorggle_server.streaming.media_pipeline import create_media_pipeline
from gorggle_server.streaming.queues import ClientDisconnectedError, EventQueue
from gorggle_server.streaming.session import RecognitionSession, ResumeState
from gorggle_server.timebase import frames_to_seconds
from gorggle_server.types import Event, Heartbeat, RecognitionOptions

if TYPE_CHECKING:
    from gorggle_server.sandbox.pool import DecoderPool

MediaFeed = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Stream:
    """A session to be run.

    Attributes:
        media_queue: where its media is taken from.
        feed: moves the media there.
        max_duration_s: how long the media may be.
        resume_state: what was read of it before.
        cpu_timer: is told what processor time it takes.
        event_queue: where its events go.
    """

    media_queue: MediaQueue
    feed: MediaFeed
    max_duration_s: float
    resume_state: ResumeState = field(default_factory=ResumeState)
    cpu_timer: CpuTimer = field(default_factory=CpuTimer)
    event_queue: EventQueue[Event] = field(default_factory=EventQueue)


class StreamExecutor:
    """Runs the sessions of one server.

    Args:
        settings: the server's.
        metrics: what is counted.
        decoder_pool: processes to decode media in; None decodes on the streams' threads.
    """

    def __init__(
        self, settings: ServerSettings, metrics: ServerMetrics, decoder_pool: DecoderPool | None
    ) -> None:
        self._settings, self._metrics, self._decoder_pool = settings, metrics, decoder_pool
        self._threads = ThreadPoolExecutor(settings.max_streams, thread_name_prefix="stream")

    async def run_stream(
        self,
        stream: Stream,
        options: RecognitionOptions,
        backend: InferenceBackend,
        heartbeat_interval_s: float = 0.0,
    ) -> AsyncGenerator[Event, None]:
        """Run a session while its intake is filled; yield what it says. When this ends, its thread is free again."""
        intake, outbox = stream.media_queue, stream.event_queue
        limit_s = stream.max_duration_s - frames_to_seconds(stream.resume_state.first_frame)
        observation = StreamObserver(self._metrics, intake)
        loop = asyncio.get_running_loop()
        perception = create_media_pipeline(
            intake,
            options,
            self._settings,
            limit_s,
            self._decoder_pool,
            request_id.get(),
            observation.stage_timer,
            stream.cpu_timer,
        )
        backend = observation.wrap_backend(StreamScopedBackend(backend, request_id.get()))
        session = RecognitionSession(
            perception, options, backend, outbox.put, outbox.wait_for_capacity, stream.resume_state
        )
        running = loop.run_in_executor(self._threads, _run_session, session, outbox, stream.cpu_timer)
        feeding = asyncio.ensure_future(_run_feed(stream.feed, intake))
        beating = asyncio.ensure_future(_send_heartbeats(outbox, heartbeat_interval_s))
        try:
            async for event in outbox:
                observation.record_event(event)
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
                observation.close()


async def _send_heartbeats(event_queue: EventQueue[Event], interval_s: float) -> None:
    """Say that there is nothing new whenever nothing was said for so long; 0: never."""
    while interval_s:
        silent_for_s = event_queue.idle_time_s
        if silent_for_s >= interval_s:
            event_queue.put(Heartbeat())
            silent_for_s = 0.0
        await asyncio.sleep(interval_s - silent_for_s)


async def _run_feed(feed: MediaFeed, media_queue: MediaQueue) -> None:
    """Feed an intake; what goes wrong reaches the session through it."""
    try:
        await feed()
    except Exception as error:  # the border of the call: the session ends, and the interceptor maps the cause
        media_queue.abort(error)
    else:
        media_queue.close()


def _run_session(session: RecognitionSession, event_queue: EventQueue[Event], cpu_timer: CpuTimer) -> None:
    """Run a session on this thread; its end, good or bad, closes the outbox."""
    try:
        with cpu_timer.track_current_thread():
            session.run()
    except ClientDisconnectedError:
        event_queue.close()
    except Exception as error:  # the border of the thread: raised again where the outbox is read
        event_queue.close(error)
    else:
        event_queue.close()
