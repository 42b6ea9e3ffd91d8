"""Transcription of one window by the inference server, with progress reports and stall detection."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from gorggle import Client, Event, Progress, Segment
from gorggle.errors import CallCancelledError
from gorggle.results import Modality, to_json
from gorggle_fusion.types import SourceName
from gorggle_lambdas.common import s3_objects
from gorggle_lambdas.common.errors import ServerStalledError
from gorggle_lambdas.common.inference_client import ServerSettings, connect_to_server
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.task_events import JobEvent
from gorggle_lambdas.media.window_planning import Window

# Minimum time between progress reports.
PROGRESS_INTERVAL_S = 3.0
# Time reserved before the function's timeout for writing the result.
SHUTDOWN_MARGIN_S = 20.0


@dataclass(frozen=True)
class Settings(ServerSettings):
    """See ``functions.toml``."""

    jobs_table: str
    results_bucket: str
    server_stall_timeout_s: int


@dataclass(frozen=True, kw_only=True)
class WindowRequest:
    """A window to transcribe.

    Attributes:
        modality: streams to use.
        start_s: start of the media in the whole video.
        chunks: bytes of a media file; None with ``audio``.
        audio: int16 (S,), 16 kHz, mono; None with ``chunks``.
    """

    modality: Modality
    start_s: float
    chunks: Iterator[bytes] | None = None
    audio: Any = None


def transcribe_and_store(
    source: SourceName,
    job: JobEvent,
    window: Window,
    request: WindowRequest,
    settings: Settings,
    context: Any,
) -> dict[str, Any]:
    """Transcribe a window, report its progress, and store the document in S3; return the output of the task.

    Raises:
        ServerStalledError, GorggleError: see ``transcribe_window``.
    """
    table = JobTable(settings.jobs_table)
    # A clip starts at the key frame before its window.
    lead_s, duration_s = window.start_s - request.start_s, window.end_s - window.start_s

    def record_progress(processed_s: float) -> None:
        in_window_s = min(max(0.0, processed_s - lead_s), duration_s)
        table.record_progress(job.job_id, job.attempt, f"{source}-{window.index}", in_window_s)

    timeout_s = context.get_remaining_time_in_millis() / 1000 - SHUTDOWN_MARGIN_S
    with connect_to_server(settings) as client:
        document = transcribe_window(
            client, request, settings.server_stall_timeout_s, timeout_s, record_progress
        )
        document["model"] = get_model_document(client, document["model"], document.pop("audio_model"))
    key = job.work_key(s3_objects.window_name(source, window.index))
    s3_objects.write_json(settings.results_bucket, key, document)
    record_progress(lead_s + duration_s)
    return {"index": window.index, "segments": len(document["window"]["segments"])}


def transcribe_window(
    client: Client,
    request: WindowRequest,
    stall_timeout_s: float,
    timeout_s: float,
    on_progress: Callable[[float], None],
) -> dict[str, Any]:
    """Transcribe a window; return the document that fusion parses.

    Args:
        client: of the server.
        request: the window.
        stall_timeout_s: longest time without any data sent or received.
        timeout_s: for the whole transcription.
        on_progress: called at intervals with the seconds processed so far.

    Raises:
        ServerStalledError: no data was sent or received for too long.
        GorggleError: an error of the server.
    """
    started = time.monotonic()
    reported_at = 0.0
    with _StallTimer(stall_timeout_s) as timer:

        def on_event(event: Event) -> None:
            nonlocal reported_at
            timer.record_activity()
            if isinstance(event, Progress) and time.monotonic() - reported_at >= PROGRESS_INTERVAL_S:
                reported_at = time.monotonic()
                on_progress(event.processed_s)

        transcription = client.transcribe(
            _watch_chunks(request.chunks, timer) if request.chunks is not None else None,
            audio=request.audio,
            modality=request.modality,
            # Fusion decides between the words of lips and audio. For audio alone the server may use a second model.
            audio_model=None if request.modality == "audio" else "none",
            start_offset_s=request.start_s,
            face_boxes=request.modality != "audio",
            on_event=on_event,
            timeout_s=max(1.0, timeout_s),
        )
        timer.start_watching(transcription.close)
        try:
            transcript = transcription.transcript()
        except CallCancelledError:
            if timer.has_stalled:
                raise ServerStalledError(
                    f"the server stopped responding for {stall_timeout_s:g} s: it may be overloaded or terminated"
                ) from None
            raise
    return {
        "window": {
            "start": round(request.start_s, 3),
            "end": round(request.start_s + transcript.duration_s, 3),
            "segments": [_to_segment_document(segment) for segment in transcript.segments],
        },
        "model": transcript.model,
        "audio_model": transcript.audio_model,
        "warnings": [{"kind": warning.kind, "message": warning.message} for warning in transcript.warnings],
        "request_id": transcript.request_id,
        "processing_s": round(time.monotonic() - started, 3),
    }


def get_model_document(client: Client, name: str, audio_model: str = "") -> dict[str, Any]:
    """Return the model's name, licence and kind of vocabulary for fusion; with a second model, either may know any words."""
    model = client.model(name)
    has_open_vocabulary = model.has_open_vocabulary or (
        bool(audio_model) and client.model(audio_model).has_open_vocabulary
    )
    model_license = model.license
    return {
        "name": f"{model.name} with {audio_model}" if audio_model else model.name,
        "licence": model_license.name or "unknown",
        "licence_summary": model_license.summary,
        "licence_url": model_license.url,
        "has_open_vocabulary": has_open_vocabulary,
    }


def _to_segment_document(segment: Segment) -> dict[str, Any]:
    # The SDK's JSON lacks the modality and face boxes, which fusion requires.
    (document,) = json.loads(to_json([segment]))["segments"]
    return {
        **document,
        "modality": segment.modality,
        "face_boxes": [
            {
                "time": round(max(0.0, box.time_s), 3),
                "left": round(box.left, 4),
                "top": round(box.top, 4),
                "width": round(box.width, 4),
                "height": round(box.height, 4),
            }
            for box in segment.face_boxes
        ],
    }


def _watch_chunks(chunks: Iterator[bytes], timer: _StallTimer) -> Iterator[bytes]:
    for chunk in chunks:
        timer.record_activity()
        yield chunk


class _StallTimer:
    """Cancels a call without activity."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._last_activity = time.monotonic()
        self._cancel: Callable[[], None] | None = None
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.has_stalled = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped.set()
        self._thread.join()

    def start_watching(self, cancel: Callable[[], None]) -> None:
        """Start timing a call; ``cancel`` ends it."""
        self.record_activity()
        self._cancel = cancel

    def record_activity(self) -> None:
        """Reset the timer."""
        self._last_activity = time.monotonic()

    def _run(self) -> None:
        while not self._is_stopped.wait(min(1.0, self._timeout_s / 4)):
            if self._cancel is not None and time.monotonic() - self._last_activity > self._timeout_s:
                self.has_stalled = True
                self._cancel()
                return
