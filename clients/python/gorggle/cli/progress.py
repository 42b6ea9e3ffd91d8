"""Progress line on a terminal."""

from __future__ import annotations

import os
import shutil
import threading
import time
from typing import TextIO

from gorggle.events import Event, MediaInfo, Progress

BAR_CHARS = 20
REDRAW_INTERVAL_S = 0.1
# No estimate before.
MIN_ETA_ELAPSED_S = 2.0
MIN_LABEL_CHARS = 8


class ProgressLine:
    """Progress of one file, redrawn in place and cleared before other output; does nothing without a terminal.

    Thread-safe: bytes may be counted in another thread than the one that handles events.
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
        self._is_closed = False
        self._sent_bytes = 0
        self._progress = Progress(0, 0.0, 0.0, 0)
        self._duration_s: float | None = None
        self._message = ""

    def add_bytes(self, sent_bytes: int) -> None:
        """Add bytes that were read for sending."""
        with self._lock:
            self._sent_bytes += sent_bytes
            self._redraw()

    def handle_event(self, event: Event) -> None:
        """Update the line from a server event."""
        with self._lock:
            if isinstance(event, MediaInfo):
                self._duration_s = event.duration_s
            elif isinstance(event, Progress):
                self._progress = event
            self._redraw()

    def set_message(self, text: str) -> None:
        """Show a text instead of the figures; an empty text shows the figures again."""
        with self._lock:
            self._message = " ".join(text.split())
            self._redraw(at_once=True)

    def clear(self) -> None:
        """Clear the line; the next update draws it again."""
        with self._lock:
            self._erase()

    def close(self) -> None:
        """Clear the line permanently."""
        with self._lock:
            self._is_closed = True
            self._erase()

    def _erase(self) -> None:
        if self._is_drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._is_drawn = False

    def _redraw(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if (
            not self._is_shown
            or self._is_closed
            or (now - self._drawn_at < REDRAW_INTERVAL_S and not at_once)
        ):
            return
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[K" + self._format_line(width, now - self._started_at))
        self._stream.flush()
        self._drawn_at, self._is_drawn = now, True

    def _format_line(self, width: int, elapsed_s: float) -> str:
        fraction = self._get_fraction_done()
        parts = [self._message] if self._message else self._format_figures(fraction, elapsed_s)
        tail = "  ".join(parts)
        label = _shorten(self._label, max(MIN_LABEL_CHARS, width - len(tail) - 2))
        return f"{label}  {tail}"[:width]

    def _format_figures(self, fraction: float | None, elapsed_s: float) -> list[str]:
        of_duration = "" if self._duration_s is None else f" of {format_duration(self._duration_s)}"
        figures = [
            f"{self._sent_bytes / 1e6:.1f} MB sent",
            f"{format_duration(self._progress.processed_s)} transcribed{of_duration}",
        ]
        if fraction is None:
            return figures
        bar = f"[{'#' * int(fraction * BAR_CHARS):-<{BAR_CHARS}}] {fraction:4.0%}"
        if fraction > 0 and elapsed_s >= MIN_ETA_ELAPSED_S:
            figures.append(f"ETA {format_duration(elapsed_s / fraction - elapsed_s)}")
        return [bar, *figures]

    def _get_fraction_done(self) -> float | None:
        """Return the fraction done, by media time if the duration is known, else by bytes."""
        if self._duration_s:
            return min(1.0, self._progress.processed_s / self._duration_s)
        if self._size_bytes:
            return min(1.0, self._progress.bytes_received / self._size_bytes)
        return None


def format_duration(time_s: float) -> str:
    """Return a duration as ``01:05``, or ``1:01:05`` from one hour."""
    rest_minutes, seconds = divmod(round(time_s), 60)
    hours, rest_minutes = divmod(rest_minutes, 60)
    return f"{hours}:{rest_minutes:02d}:{seconds:02d}" if hours else f"{rest_minutes:02d}:{seconds:02d}"


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]
