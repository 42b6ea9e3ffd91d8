"""Transcripts as JSON, text and captions."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle import Segment, Transcript, Word, to_json, to_text, to_text_line
from gorggle.results import format_time, sort_segments

# The duration of an example depends on the load of the machine.
no_deadline = settings(deadline=None)

SEGMENT = Segment(
    0.5204,
    2.0999,
    "bin blüe",
    confidence=0.87654321,
    speaker="face-1",
    words=(Word("bin", 0.5204, 1.0, 0.9, "both"), Word("blüe", 1.00049, 2.0999, 1 / 3)),
)
TRANSCRIPT = Transcript("clip.mp4", 3.00049, "grid", (SEGMENT,))


def test_json_has_exactly_the_documented_fields() -> None:
    assert json.loads(TRANSCRIPT.to_json()) == {
        "file": "clip.mp4",
        "duration": 3.0,
        "model": "grid",
        "audio_model": "",
        "segments": [
            {
                "start": 0.52,
                "end": 2.1,
                "text": "bin blüe",
                "speaker": "face-1",
                "confidence": 0.8765,
                "doubtful": False,
                "words": [
                    {"start": 0.52, "end": 1.0, "text": "bin", "confidence": 0.9, "source": "both"},
                    {"start": 1.0, "end": 2.1, "text": "blüe", "confidence": 0.3333, "source": ""},
                ],
            }
        ],
    }
    assert list(json.loads(TRANSCRIPT.to_json())) == ["file", "duration", "model", "audio_model", "segments"]
    assert "blüe" in TRANSCRIPT.to_json()
    assert "\n" not in TRANSCRIPT.to_json(indent=None)


def test_segments_can_be_written_without_a_transcript() -> None:
    assert json.loads(to_json([SEGMENT], file="clip.mp4", duration_s=3, model="grid")) == json.loads(
        TRANSCRIPT.to_json()
    )
    assert to_text([SEGMENT]) == TRANSCRIPT.to_text()


def test_text_is_one_line_per_segment() -> None:
    assert TRANSCRIPT.to_text() == "[00:00.52 - 00:02.10] Person 1: bin blüe\n"
    assert (
        to_text_line(Segment(3599.996, 3600.5, "over\nan hour")) == "[1:00:00.00 - 1:00:00.50] over an hour"
    )
    assert TRANSCRIPT.text == "bin blüe"


def test_doubtful_words_are_marked_in_every_format() -> None:
    transcript = dataclasses.replace(
        TRANSCRIPT, segments=(dataclasses.replace(SEGMENT, is_doubtful=True, modality="video"),)
    )
    assert transcript.to_text() == "[00:00.52 - 00:02.10] Person 1: (?) bin blüe\n"
    assert transcript.to_srt() == "1\n00:00:00,520 --> 00:00:02,100\n(?) bin blüe\n"
    assert transcript.to_vtt() == "WEBVTT\n\n1\n00:00:00.520 --> 00:00:02.100\n<v Person 1>(?) bin blüe\n"
    assert json.loads(transcript.to_json())["segments"][0]["doubtful"] is True
    assert transcript.text == "bin blüe"


def test_a_transcript_writes_captions() -> None:
    assert TRANSCRIPT.to_srt() == "1\n00:00:00,520 --> 00:00:02,100\nbin blüe\n"
    assert TRANSCRIPT.to_vtt() == "WEBVTT\n\n1\n00:00:00.520 --> 00:00:02.100\n<v Person 1>bin blüe\n"


def test_interim_segments_are_never_written() -> None:
    interim = dataclasses.replace(SEGMENT, is_final=False)
    assert json.loads(to_json([interim]))["segments"] == []
    assert to_text([interim]) == ""
    assert sort_segments([interim]) == ()


def test_results_are_immutable_and_hashable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SEGMENT.text = "other"  # type: ignore[misc]
    assert len({SEGMENT, dataclasses.replace(SEGMENT)}) == 1


@no_deadline
@given(st.floats(0, 1e6))
def test_format_time_never_shows_sixty_seconds(time_s: float) -> None:
    shown = format_time(time_s)
    *hours, minutes, seconds = shown.split(":")
    assert int(minutes) < 60
    assert float(seconds) < 60
    total_s = 3600 * int(hours[0] if hours else 0) + 60 * int(minutes) + float(seconds)
    assert total_s == pytest.approx(time_s, abs=0.00501)
