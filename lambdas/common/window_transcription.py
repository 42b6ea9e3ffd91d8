"""Reading one window by the GPU server: what goes there, what comes back, and noticing when nothing does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from gorggle import Client, Event, Progress, Segment
from gorggle.errors import CallCancelledError
from gorggle.results import Modality
from gorggle_lambdas.common.errors import ServerStalledError

# Progress goes to the table this often at most.
PROGRESS_INTERVAL_S = 3.0
# Left of a function's time for writing what was read.
SHUTDOWN_MARGIN_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long reading may take.

    Attributes:
        server_stall_timeout_s: nothing may come or go for so long.
        timeout_s: for the whole.
    """

    server_stall_timeout_s: float
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class WindowRequest:
    """What the server is to read.

    Attributes:
        modality: what from.
        start_s: what second 0 of the media is in the whole video.
        chunks: a media file's bytes; None for ``audio``.
        audio: int16 (S,), 16 kHz, mono; None for ``chunks``.
    """

    modality: Modality
    start_s: float
    chunks: Iterator[bytes] | None = None
    audio: Any = None


def transcribe_window(
    client: Client, request: WindowRequest, limits: Limits, on_progress: Callable[[float], None]
) -> dict[str, Any]:
    """Have a window read, and write what came as fusion takes it.

    Args:
        client: of the server.
        request: the window.
        limits: how long it may take.
        on_progress: called now and then with the seconds that are read.

    Raises:
        ServerStalledError: nothing came or went for too long.
        GorggleError: what the server refused.
    """
    started = time.monotonic()
    progress = _ProgressReporter(on_progress)
    with _StallTimer(limits.server_stall_timeout_s) as watch:

        def on_event(event: Event) -> None:
            watch.record_activity()
            progress.handle_event(event)

        transcription = client.transcribe(
            _watch_chunks(request.chunks, watch),
            audio=request.audio,
            modality=request.modality,
            start_offset_s=request.start_s,
            face_boxes=request.modality != "audio",
            on_event=on_event,
            timeout_s=max(1.0, limits.timeout_s),
        )
        watch.start_watching(transcription.close)
        try:
            transcript = transcription.transcript()
        except CallCancelledError:
            if watch.has_stalled:
                raise ServerStalledError(
                    f"the server sent nothing for {limits.server_stall_timeout_s:g} s: it may be overloaded or gone"
                ) from None
            raise
    return {
        "window": {
            "start": round(request.start_s, 3),
            "end": round(request.start_s + transcript.duration_s, 3),
            "segments": [_to_segment_document(segment) for segment in transcript.segments],
        },
        "model": transcript.model,
        "warnings": [{"kind": one.kind, "message": one.message} for one in transcript.warnings],
        "request_id": transcript.request_id,
        "took_s": round(time.monotonic() - started, 3),
    }


def get_model_document(client: Client, name: str) -> dict[str, str]:
    """The model's name and licence, as fusion takes them."""
    model = client.model(name)
    terms = model.license
    return {
        "name": model.name,
        "licence": terms.name or "unknown",
        "licence_summary": terms.summary,
        "licence_url": terms.url,
    }


def _to_segment_document(segment: Segment) -> dict[str, Any]:
    # The SDK's JSON leaves out what the words were read from and where the face was; fusion wants both.
    return {
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "speaker": segment.speaker,
        "confidence": round(segment.confidence, 4),
        "modality": segment.modality,
        "words": [
            {
                "start": round(word.start_s, 3),
                "end": round(word.end_s, 3),
                "text": word.text,
                "confidence": round(word.confidence, 4),
            }
            for word in segment.words
        ],
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


def _watch_chunks(chunks: Iterator[bytes] | None, watch: _StallTimer) -> Iterator[bytes] | None:
    return None if chunks is None else _signed(chunks, watch)


def _signed(chunks: Iterator[bytes], watch: _StallTimer) -> Iterator[bytes]:
    for chunk in chunks:
        watch.record_activity()
        yield chunk


class _ProgressReporter:
    """Tells how far the reading is, but not too often."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._on_progress = tell
        self._reported_at = 0.0

    def handle_event(self, event: Event) -> None:
        if isinstance(event, Progress) and time.monotonic() - self._reported_at >= PROGRESS_INTERVAL_S:
            self._reported_at = time.monotonic()
            self._on_progress(event.processed_s)


class _StallTimer:
    """Ends a call that gives no sign of life: a state's heartbeat, where the work is one Lambda's."""

    def __init__(self, server_stall_timeout_s: float) -> None:
        self._server_stall_timeout_s = server_stall_timeout_s
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
        """Say how to end the call."""
        self.record_activity()
        self._cancel = cancel

    def record_activity(self) -> None:
        """There was a sign of life."""
        self._last_activity = time.monotonic()

    def _run(self) -> None:
        while not self._is_stopped.wait(min(1.0, self._server_stall_timeout_s / 4)):
            if (
                self._cancel is not None
                and time.monotonic() - self._last_activity > self._server_stall_timeout_s
            ):
                self.has_stalled = True
                self._cancel()
                return
