"""Speaker ids: one per person, and final once sent."""

from __future__ import annotations

from gorggle_server.events import Event
from gorggle_server.streaming.event_emitter import EventEmitter
from gorggle_server.streaming.stream_buffer import FaceTrack


def create_emitter(*speakers: int) -> EventEmitter:
    events: list[Event] = []
    return EventEmitter(events.append, speakers)


def track(number: int, identity: int | None = None) -> FaceTrack:
    return FaceTrack(number, number, 0, identity=identity)


def test_speakers_are_numbered_in_the_order_of_first_speaking() -> None:
    emitter = create_emitter()
    assert emitter.get_speaker_id(track(7)) == "face-1"
    assert emitter.get_speaker_id(track(2, identity=2)) == "face-2"
    assert emitter.get_speaker_id(None) == "voice"
    assert emitter.get_speaker_id(track(7)) == "face-1"


def test_a_recognized_person_keeps_the_id() -> None:
    emitter = create_emitter()
    assert emitter.get_speaker_id(track(1, identity=1)) == "face-1"
    assert emitter.get_speaker_id(track(2, identity=2)) == "face-2"
    assert emitter.get_speaker_id(track(3, identity=1)) == "face-1"
    assert emitter.get_speaker_id(track(4, identity=2)) == "face-2"


def test_a_person_whose_first_track_did_not_speak_has_one_id() -> None:
    emitter = create_emitter()
    assert emitter.get_speaker_id(track(3, identity=1)) == "face-1"
    assert emitter.get_speaker_id(track(5, identity=1)) == "face-1"
    assert emitter.get_speaker_id(track(1, identity=1)) == "face-1"


def test_an_id_that_was_sent_does_not_change_when_the_person_is_recognized() -> None:
    emitter = create_emitter()
    assert emitter.get_speaker_id(track(1, identity=1)) == "face-1"
    late = track(2)
    assert emitter.get_speaker_id(late) == "face-2"
    late.identity = 1
    assert emitter.get_speaker_id(late) == "face-2"
    assert emitter.get_speaker_id(track(3, identity=1)) == "face-1"


def test_a_person_who_was_named_before_being_recognized_keeps_that_id_later() -> None:
    emitter = create_emitter()
    late = track(2)
    assert emitter.get_speaker_id(late) == "face-1"
    late.identity = 1  # the first track did not speak
    assert emitter.get_speaker_id(late) == "face-1"
    assert emitter.get_speaker_id(track(3, identity=1)) == "face-1"


def test_ids_continue_in_a_resumed_stream() -> None:
    emitter = create_emitter(4, 1)
    assert emitter.get_speaker_id(track(9, identity=1)) == "face-2"
    assert emitter.get_speaker_id(track(4, identity=1)) == "face-1"
    assert emitter.speakers == (4, 1)
