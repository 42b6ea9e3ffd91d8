"""Speaker labels are kept across servers by matching face positions."""

from __future__ import annotations

from typing import Any

from gorggle import FaceBox, Segment
from gorggle_gateway.speaker_identity import SpeakerIdentities

LEFT, RIGHT = (0.1, 0.2), (0.6, 0.2)


def make_segment(speaker: str, at: tuple[float, float] | None = None) -> Segment:
    boxes = (FaceBox(1.0, *at, 0.25, 0.4),) if at else ()
    fields: dict[str, Any] = {
        "segment_id": "1", "revision": 1, "is_final": True, "speaker": speaker, "modality": "av",
        "start_s": 0.0, "end_s": 1.0, "text": "x", "confidence": 1.0, "words": (), "face_boxes": boxes,
    }  # fmt: skip
    return Segment(**fields)


def test_the_labels_of_the_first_server_are_used() -> None:
    speakers = SpeakerIdentities()
    assert [
        speakers.resolve(make_segment(name, at), 1) for name, at in (("face-1", LEFT), ("face-2", RIGHT))
    ] == [
        "face-1",
        "face-2",
    ]
    assert speakers.resolve(make_segment("voice"), 1) == "voice"


def test_labels_are_kept_on_a_server_with_different_numbering() -> None:
    speakers = SpeakerIdentities()
    speakers.resolve(make_segment("face-1", LEFT), 1)
    speakers.resolve(make_segment("face-2", RIGHT), 1)
    assert speakers.lookup("face-1", 2) == "face-1"
    assert speakers.resolve(make_segment("face-1", (0.58, 0.22)), 2) == "face-2"
    assert speakers.resolve(make_segment("face-7", LEFT), 2) == "face-1"
    assert speakers.lookup("face-1", 2) == "face-2"
    assert speakers.resolve(make_segment("face-1"), 2) == "face-2"
    assert speakers.resolve(make_segment("voice"), 2) == "voice"


def test_a_new_face_gets_an_unused_label() -> None:
    speakers = SpeakerIdentities()
    speakers.resolve(make_segment("face-1", LEFT), 1)
    assert speakers.resolve(make_segment("face-1", RIGHT), 2) == "face-1.2"
    assert speakers.resolve(make_segment("face-2", LEFT), 2) == "face-1"


def test_without_face_boxes_server_labels_are_kept() -> None:
    speakers = SpeakerIdentities()
    assert [speakers.resolve(make_segment("face-1"), generation) for generation in (1, 2)] == [
        "face-1",
        "face-1",
    ]
