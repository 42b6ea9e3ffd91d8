"""A line on a terminal that tells how far one file is."""

from __future__ import annotations

import os
import shutil
import threading
import time
from typing import TextIO

from gorggle.events import Event, MediaInfo, Progress

BAR_CHARS = 20
REDRAW_INTERVAL_S = 0.1
# An estimate from less is a guess.
MIN_ETA_ELAPSED_S = 2.0
MIN_LABEL_CHARS = 8


class ProgressLine:
    """Drawn over and over on standard error, and wiped before anything else is written.

    Where the stream is no terminal, nothing is drawn. Bytes may be counted in another thread than the one that
    handles events.
    """

    def __init__(self, stream: TextIO, label: str, size_bytes: int | None = None) -> None:
        self._stream = stream
        self._label = label
        self._size_bytes = size_bytes
        self._is_shown = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self._started_at = time.monotonic()
        self._drawn_at = 0.0
        self._is_drawn = False
        self._is_over = False
        self._sent_bytes = 0
        self._progress = Progress(0, 0.0, 0.0, 0)
        self._duration_s: float | None = None
        self._message = ""

    def add_bytes(self, sent_bytes: int) -> None:
        """More of the file was taken for sending."""
        with self._lock:
            self._sent_bytes += sent_bytes
            self._redraw()

    def handle_event(self, event: Event) -> None:
        """The server told something."""
        with self._lock:
            if isinstance(event, MediaInfo):
                self._duration_s = event.duration_s
            elif isinstance(event, Progress):
                self._progress = event
            self._redraw()

    def set_message(self, text: str) -> None:
        """Show some text in the place of the figures; empty text brings these back."""
        with self._lock:
            self._message = " ".join(text.split())
            self._redraw(at_once=True)

    def clear(self) -> None:
        """Wipe the line; the next change draws it again."""
        with self._lock:
            self._wipe()

    def close(self) -> None:
        """Wipe the line for good."""
        with self._lock:
            self._is_over = True
            self._wipe()

    def _wipe(self) -> None:
        if self._is_drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._is_drawn = False

    def _redraw(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not self._is_shown or self._is_over or (now - self._drawn_at < REDRAW_INTERVAL_S and not at_once):
            return
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[K" + self._format_line(width, now - self._started_at))
        self._stream.flush()
        self._drawn_at, self._is_drawn = now, True

    def _format_line(self, width: int, elapsed_s: float) -> str:
        share = self._get_fraction_done()
        parts = [self._message] if self._message else self._format_figures(share, elapsed_s)
        tail = "  ".join(parts)
        label = _shorten(self._label, max(MIN_LABEL_CHARS, width - len(tail) - 2))
        return f"{label}  {tail}"[:width]

    def _format_figures(self, share: float | None, elapsed_s: float) -> list[str]:
        figures = [f"{self._sent_bytes / 1e6:.1f} MB sent", self._format_media_time()]
        if share is None:
            return figures
        bar = f"[{'#' * int(share * BAR_CHARS):-<{BAR_CHARS}}] {share:4.0%}"
        if share > 0 and elapsed_s >= MIN_ETA_ELAPSED_S:
            figures.append(f"ETA {format_duration(elapsed_s / share - elapsed_s)}")
        return [bar, *figures]

    def _format_media_time(self) -> str:
        processed = f"{format_duration(self._progress.processed_s)} read"
        return (
            processed if self._duration_s is None else f"{processed} of {format_duration(self._duration_s)}"
        )

    def _get_fraction_done(self) -> float | None:
        """How much is done, from 0 to 1, by media time where its length is known, else by bytes."""
        if self._duration_s:
            return min(1.0, self._progress.processed_s / self._duration_s)
        if self._size_bytes:
            return min(1.0, self._progress.bytes_received / self._size_bytes)
        return None


def format_duration(time_s: float) -> str:
    """A time to the second: ``01:05``, from an hour on ``1:01:05``."""
    rest_minutes, seconds = divmod(round(time_s), 60)
    hours, rest_minutes = divmod(rest_minutes, 60)
    return f"{hours}:{rest_minutes:02d}:{seconds:02d}" if hours else f"{rest_minutes:02d}:{seconds:02d}"


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]
