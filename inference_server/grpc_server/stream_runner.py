"""Runs recognition sessions: each on a worker thread, with its media and events exchanged with the event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.events import Event, Heartbeat
from gorggle_server.grpc_server.media_receiver import MediaQueue
from gorggle_server.grpc_server.stream_observer import StreamObserver
from gorggle_server.inference.combined_recognition import CombinedSubmit
from gorggle_server.inference.scheduler import InferenceBackend, SubmitFunction
from gorggle_server.input_format import frames_to_seconds
from gorggle_server.logging_setup import request_id
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.recognition_options import RecognitionOptions
from gorggle_server.settings import ServerSettings
from gorggle_server.streaming.media_pipeline import ContainerPipeline, MediaPipeline, PreprocessedPipeline
from gorggle_server.streaming.queues import ClientDisconnectedError, EventQueue
from gorggle_server.streaming.session import RecognitionSession, ResumeState

if TYPE_CHECKING:
    from gorggle_server.sandbox.pool import DecoderPool

MediaFeed = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Stream:
    """A session to run.

    Attributes:
        media_queue: input of the session.
        feed: fills the media queue.
        max_duration_s: maximum duration of the media.
        resume_state: state of the session before this call.
        cpu_timer: measures the session's CPU time.
        event_queue: output of the session.
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
        settings: the server's settings.
        metrics: the server's metrics.
        decoder_pool: sandboxed decoder subprocesses; None decodes on the worker threads.
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
        """Run a session, feed it and yield its events. The session's thread is free when the generator is closed."""
        max_duration_s = stream.max_duration_s - frames_to_seconds(stream.resume_state.first_frame)
        observer = StreamObserver(self._metrics, stream.media_queue)
        loop = asyncio.get_running_loop()
        pipeline: MediaPipeline
        if isinstance(stream.media_queue, BytePipe):
            pipeline = ContainerPipeline(
                stream.media_queue,
                options,
                self._settings,
                max_duration_s,
                self._decoder_pool,
                request_id.get(),
                observer.stage_timer,
                stream.cpu_timer,
            )
        else:
            pipeline = PreprocessedPipeline(stream.media_queue, options, max_duration_s)
        session = RecognitionSession(
            pipeline,
            options,
            _bind_submit(backend, options, observer),
            stream.event_queue.put,
            stream.event_queue.wait_for_capacity,
            stream.resume_state,
        )
        session_task = loop.run_in_executor(
            self._threads, _run_session, session, stream.event_queue, stream.cpu_timer
        )
        feed_task = asyncio.ensure_future(_run_feed(stream.feed, stream.media_queue))
        heartbeat_task = asyncio.ensure_future(_send_heartbeats(stream.event_queue, heartbeat_interval_s))
        try:
            async for event in stream.event_queue:
                observer.record_event(event)
                yield event
        finally:
            session.stop()
            stream.media_queue.abort(ClientDisconnectedError())
            stream.event_queue.close()
            feed_task.cancel()
            heartbeat_task.cancel()
            # The caller releases the stream's slot next, so the thread must be free.
            try:
                await asyncio.wait([session_task, feed_task, heartbeat_task])
            finally:
                observer.close()


def _bind_submit(
    backend: InferenceBackend, options: RecognitionOptions, observer: StreamObserver
) -> SubmitFunction:
    """Return the function that submits this stream's windows to its model, or to both of its models."""
    submit, submit_audio = (
        observer.wrap_submit(functools.partial(backend.submit, model, stream=request_id.get()))
        for model in (options.model, options.audio_model)
    )
    if not options.audio_model:
        return submit
    return CombinedSubmit(submit, submit_audio, has_closed_lips=not options.has_open_vocabulary)


async def _send_heartbeats(event_queue: EventQueue[Event], interval_s: float) -> None:
    """Emit a heartbeat after every interval without an event; 0: never."""
    while interval_s:
        idle_s = event_queue.idle_time_s
        if idle_s >= interval_s:
            event_queue.put(Heartbeat())
            idle_s = 0.0
        await asyncio.sleep(interval_s - idle_s)


async def _run_feed(feed: MediaFeed, media_queue: MediaQueue) -> None:
    """Fill a media queue; pass errors to the session through it."""
    try:
        await feed()
    except Exception as error:  # call boundary: the session raises it, and the interceptor maps it
        media_queue.abort(error)
    else:
        media_queue.close()


def _run_session(session: RecognitionSession, event_queue: EventQueue[Event], cpu_timer: CpuTimer) -> None:
    """Run a session on this thread, then close its event queue, with the error if there is one."""
    try:
        with cpu_timer.track_current_thread():
            session.run()
    except ClientDisconnectedError:
        event_queue.close()
    except Exception as error:  # thread boundary: raised again by the reader of the event queue
        event_queue.close(error)
    else:
        event_queue.close()
