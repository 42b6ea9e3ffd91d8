"""Thread-safe event emitter of one stream; also assigns speaker ids."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from gorggle_server.events import Event
from gorggle_server.streaming.stream_buffer import FaceTrack

AUDIO_ONLY_SPEAKER = "voice"


class EventEmitter:
    """Emits the events of one stream.

    Args:
        emit: receives the events; called from several threads, never concurrently.
        speakers: people who have spoken before, in the order in which they first spoke.

    Attributes:
        lock: held while an event is emitted; hold it to group several operations.
    """

    def __init__(self, emit: Callable[[Event], None], speakers: Iterable[int] = ()) -> None:
        self.lock = threading.RLock()
        self._emit = emit
        self._speaker_ids = {person: f"face-{number}" for number, person in enumerate(speakers, 1)}

    @property
    def speakers(self) -> tuple[int, ...]:
        """People who have spoken, in the order in which they first spoke."""
        return tuple(self._speaker_ids)

    def emit(self, event: Event) -> None:
        """Emit an event."""
        with self.lock:
            self._emit(event)

    def get_speaker_id(self, track: FaceTrack | None) -> str:
        """Return the speaker id of a track, numbered in the order of first speaking; None is the audio-only speaker."""
        if track is None:
            return AUDIO_ONLY_SPEAKER
        with self.lock:
            return self._speaker_ids.setdefault(track.person, f"face-{len(self._speaker_ids) + 1}")
