"""How one stream speaks: its events leave one at a time, whichever thread they come from, and its speakers have names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from gorggle_server.streaming.stream_buffer import FaceTrack
from gorggle_server.types import Event

AUDIO_ONLY_SPEAKER = "voice"


class EventEmitter:
    """Says the events of one stream.

    Args:
        emit: takes the events; called from several threads, but never from two at once.
        speakers: those who have spoken already, in the order in which they first did.

    Attributes:
        lock: held while anything is said; hold it where several things belong together.
    """

    def __init__(self, emit: Callable[[Event], None], speakers: Iterable[int] = ()) -> None:
        self.lock = threading.RLock()
        self._emit = emit
        self._speaker_ids = {person: f"face-{number}" for number, person in enumerate(speakers, 1)}

    @property
    def speakers(self) -> tuple[int, ...]:
        """Those who have spoken, in the order in which they first did."""
        return tuple(self._speaker_ids)

    def emit(self, event: Event) -> None:
        """Send an event to whoever reads the stream."""
        with self.lock:
            self._emit(event)

    def get_speaker_id(self, track: FaceTrack | None) -> str:
        """The name of whoever a track shows, numbered in the order of first speaking; of the sound alone for None."""
        if track is None:
            return AUDIO_ONLY_SPEAKER
        with self.lock:
            return self._speaker_ids.setdefault(track.person, f"face-{len(self._speaker_ids) + 1}")
