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
        # People who were named before they were recognized, by their identity.
        self._aliases: dict[int, int] = {}

    @property
    def speakers(self) -> tuple[int, ...]:
        """People who have spoken, in the order in which they first spoke."""
        return tuple(self._speaker_ids)

    def emit(self, event: Event) -> None:
        """Emit an event."""
        with self.lock:
            self._emit(event)

    def get_speaker_id(self, track: FaceTrack | None) -> str:
        """Return the speaker id of a track, numbered in the order of first speaking; None is the audio-only speaker.

        An id that was sent is final: if a track has one when its person is recognized, it keeps that one.
        """
        if track is None:
            return AUDIO_ONLY_SPEAKER
        with self.lock:
            person = track.person
            if person not in self._speaker_ids and track.identity is not None:
                person = self._aliases.get(track.identity, track.identity)
            speaker_id = self._speaker_ids.setdefault(person, f"face-{len(self._speaker_ids) + 1}")
            if track.identity is not None and track.identity not in self._speaker_ids:
                self._aliases.setdefault(track.identity, person)
            return speaker_id
