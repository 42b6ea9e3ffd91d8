"""Tests of the strict parsers: every error names the location."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle import Segment as SdkSegment
from gorggle import Transcript
from gorggle import Word as SdkWord
from gorggle_fusion import (
    FusionInputError,
    parse_audio_window,
    parse_lip_window,
    parse_media,
    parse_model,
    parse_noise,
    parse_rekognition_tracks,
    parse_transcribe_language,
    parse_transcribe_result,
)
from gorggle_fusion.types import FaceBox, NoiseSpan, Word
from tests.fusion.factories import build_transcribe_result, texts

LIPS: dict[str, Any] = {
    "start": 10.0,
    "end": 20.0,
    "segments": [
        {
            "start": 11.0,
            "end": 12.0,
            "text": "bin blue",
            "speaker": "face-1",
            "confidence": 0.8,
            "modality": "video",
            "words": [
                {"start": 11.0, "end": 11.4, "text": "bin", "confidence": 0.9},
                {"start": 11.4, "end": 12.0, "text": "blue", "confidence": 0.7},
            ],
            "face_boxes": [{"time": 11.2, "left": 0.4, "top": 0.2, "width": 0.1, "height": 0.2}],
        }
    ],
}


def replace_field(path: str, value: Any) -> dict[str, Any]:
    """Return a copy of ``LIPS`` with the value at a path such as "segments.0.words.1.text" replaced or deleted."""
    document = copy.deepcopy(LIPS)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    node: Any = document
    for step in parents:
        node = node[step]
    if value is KeyError:
        del node[last]
    else:
        node[last] = value
    return document


def test_a_lip_reading_window_is_parsed() -> None:
    window = parse_lip_window(LIPS)
    [segment] = window.segments
    assert (window.start_s, window.end_s, segment.speaker, segment.origin) == (10, 20, "face-1", "lips")
    assert segment.words[1] == Word("blue", 11.4, 12.0, 0.7)
    assert segment.face_boxes == (FaceBox(11.2, 0.4, 0.2, 0.1, 0.2),)


def test_the_sdk_transcript_is_parsed() -> None:
    sdk_segment = SdkSegment(
        1.0, 2.0, "hello", 0.9, speaker="voice", words=(SdkWord("hello", 1.0, 2.0, 0.9),)
    )
    document = json.loads(Transcript("a.mp4", 5.0, "m", (sdk_segment,)).to_json())
    window = parse_audio_window({**document, "start": 0, "end": 5.0})
    [segment] = window.segments
    assert (segment.speaker, segment.origin, texts(segment.words)) == ("", "audio", ["hello"])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("segments", KeyError, "the lip reading: segments is missing"),
        ("segments", {}, "segments is {}; expected a list"),
        ("segments.0", 7, r"segments\[0\] is 7; expected a JSON object"),
        ("segments.0.words.1.text", "  ", r"segments\[0\]: words\[1\]: text is '  '; expected a word"),
        ("segments.0.words.1.text", 5, "text is 5; expected a string"),
        ("segments.0.words.1.confidence", 1.5, "confidence is 1.5; expected a number from 0 to 1"),
        ("segments.0.words.1.confidence", True, "confidence is True"),
        ("segments.0.words.1.confidence", KeyError, "confidence is missing"),
        ("segments.0.words.1.start", float("nan"), "start is nan"),
        ("segments.0.words.1.start", "11.4", "start is '11.4'; expected a number from 0 up"),
        ("segments.0.words.1.start", 10**400, "start is 1000"),
        ("segments.0.words.1.end", 11.3, r"end is 11.3; expected a number from 11.4 up"),
        ("segments.0.words", [], "words is .*; expected the words of its text: request word timestamps"),
        ("segments.0.modality", "lips", "modality is 'lips'; expected video or audio or av"),
        ("segments.0.speeker", "x", "unknown fields: speeker"),
        ("end", 9, "end is 9; expected a number from 10 up"),
        ("segments.0.face_boxes.0.width", -1, "width is -1"),
    ],
)
def test_an_invalid_field_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(FusionInputError, match=message):
        parse_lip_window(replace_field(path, value))


@pytest.mark.parametrize("document", [None, [], "x", 5])
@pytest.mark.parametrize(
    "parse",
    [
        parse_lip_window,
        parse_audio_window,
        parse_noise,
        parse_media,
        parse_model,
        parse_transcribe_language,
    ],
)
def test_a_document_that_is_not_an_object_is_rejected(parse: Any, document: Any) -> None:
    with pytest.raises(FusionInputError, match="expected a JSON object"):
        parse(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["start", "segments", "segments.0", "segments.0.words.0", "segments.0.words.1.end"]),
    json_values,
)
def test_any_value_is_parsed_or_rejected(path: str, value: Any) -> None:
    message = "the lip reading"
    try:
        parse_lip_window(replace_field(path, value))
    except FusionInputError as error:
        message = str(error)
    assert message.startswith("the lip reading")


def test_lone_surrogates_are_replaced() -> None:
    [segment] = parse_lip_window(replace_field("segments.0.words.0.text", "a\ud800b")).segments
    assert segment.words[0].text == "a\ufffdb"


def test_an_audio_window_with_another_modality_is_rejected() -> None:
    with pytest.raises(FusionInputError, match="another modality; expected audio"):
        parse_audio_window(replace_field("segments.0.modality", "av"))


def test_noise_spans_must_not_overlap() -> None:
    spans = [{"start": 0, "end": 5, "snr_db": -3.5}, {"start": 5, "end": 9, "snr_db": 20}]
    assert parse_noise({"spans": spans})[0] == NoiseSpan(0, 5, -3.5)
    with pytest.raises(FusionInputError, match="expected sorted spans without overlaps"):
        parse_noise({"spans": spans[::-1]})


def test_media_and_model_are_parsed() -> None:
    assert parse_media({"duration_s": 12.5, "width_px": 640}).width_px == 640
    assert parse_model({"name": "m", "licence": "Apache-2.0"}).licence == "Apache-2.0"
    with pytest.raises(FusionInputError, match="licence is missing"):
        parse_model({"name": "m"})


# Amazon Transcribe

CONVERSATION = [
    ("I've", 4.87, 5.02, 1.0, "spk_0"),
    ("been", 5.02, 5.17, 0.98, "spk_0"),
    (".", 0, 0, 0, ""),
    ("Sorry", 8.49, 8.88, 0.9, "spk_1"),
    (",", 0, 0, 0, ""),
    ("sir", 8.88, 9.0, 0.9, "spk_1"),
    ("?", 0, 0, 0, ""),
]


@pytest.mark.parametrize("speaker_in_items", [True, False])
def test_a_transcribe_result_is_parsed(speaker_in_items: bool) -> None:
    window = parse_transcribe_result(
        build_transcribe_result(CONVERSATION, speaker_in_items=speaker_in_items), 30.0
    )
    assert (window.start_s, window.end_s) == (0.0, 30.0)
    assert [(s.speaker, texts(s.words)) for s in window.segments] == [
        ("spk_0", ["I've", "been."]),
        ("spk_1", ["Sorry,", "sir?"]),
    ]
    assert window.segments[0].words[0] == Word("I've", 4.87, 5.02, 1.0)


def test_transcribe_words_without_speakers_have_an_unknown_speaker() -> None:
    window = parse_transcribe_result(build_transcribe_result([(*w[:4], "") for w in CONVERSATION]), 1.0)
    assert [s.speaker for s in window.segments] == [""]
    assert window.end_s == 9.0


def test_transcribe_opening_marks_belong_to_the_next_word() -> None:
    words = [("¿", 0, 0, 0, ""), ("Qué", 0.0, 0.5, 0.9, ""), ("?", 0, 0, 0, "")]
    assert texts(parse_transcribe_result(build_transcribe_result(words), 1).segments[0].words) == ["¿Qué?"]


def test_transcribe_alternatives_and_redactions_are_parsed() -> None:
    document = build_transcribe_result([("two", 0, 1, 0.6, "")])
    document["results"]["items"][0]["alternatives"] += [{"content": "to", "confidence": "0.3"}]
    document["results"]["items"] += [
        {
            "type": "pronunciation",
            "start_time": "2.0",
            "end_time": "3.0",
            "alternatives": [{"content": "[PII]", "redactions": [{"confidence": "0.9"}]}],
        }
    ]
    document["results"]["language_code"] = "en-GB"
    first, second = parse_transcribe_result(document, 5).segments[0].words
    assert [(a.text, a.confidence) for a in first.alternatives] == [("to", 0.3)]
    assert (second.text, second.confidence) == ("[PII]", 0.9)
    assert parse_transcribe_language(document) == "en-GB"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "FAILED"}, "status is 'FAILED'; expected COMPLETED"),
        ({"results": {}}, "items is missing"),
        ({"results": {"items": [{"type": "noise"}]}}, "pronunciation or punctuation"),
        ({"results": {"items": [{"type": "pronunciation", "alternatives": []}]}}, "at least one"),
        (
            {
                "results": {
                    "items": [
                        {"type": "pronunciation", "alternatives": [{"content": "a", "confidence": "1"}]}
                    ]
                }
            },
            "start_time is missing",
        ),
    ],
)
def test_an_invalid_transcribe_result_is_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FusionInputError, match=message):
        parse_transcribe_result({**build_transcribe_result(CONVERSATION), **changes}, 1)


def test_an_empty_transcription_has_no_segments() -> None:
    assert parse_transcribe_result(build_transcribe_result([]), 9.0).segments == ()


# Amazon Rekognition


def detection(time_ms: int, left: float) -> dict[str, Any]:
    box = {"Left": left, "Top": 0.2, "Width": 0.1, "Height": 0.2}
    return {"Timestamp": time_ms, "Face": {"BoundingBox": box, "Confidence": 99.9, "Emotions": []}}


def page(*faces: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"JobStatus": "SUCCEEDED", "VideoMetadata": {"FrameRate": 25.0}, "Faces": list(faces), **more}


def test_rekognition_detections_are_linked_to_tracks() -> None:
    """Two faces with disjoint boxes: one is continuous, the other has a short gap and then a long one."""
    continuous = [detection(t, 0.1 + t / 1e5) for t in range(0, 3000, 500)]
    intermittent = [detection(t, 0.7) for t in (0, 500, 1500, 6000)]
    tracks = parse_rekognition_tracks([page(*intermittent, NextToken="x"), page(*continuous)])
    assert [(t.name, len(t.boxes)) for t in tracks] == [("track-1", 6), ("track-2", 3), ("track-3", 1)]
    assert tracks[0].boxes[1].time_s == 0.5


def test_a_face_at_another_position_is_a_new_track() -> None:
    assert len(parse_rekognition_tracks([page(detection(0, 0.1), detection(500, 0.5))])) == 2


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([], "at least one"),
        ([page(NextToken="more")], "expected all pages"),
        ([{"JobStatus": "FAILED"}], "JobStatus is 'FAILED'; expected SUCCEEDED"),
        ([page({"Timestamp": 0})], "Face is missing"),
        ([page({"Timestamp": -1, "Face": detection(0, 0)["Face"]})], "Timestamp is -1"),
    ],
)
def test_an_incomplete_rekognition_result_is_rejected(pages: list[Any], message: str) -> None:
    with pytest.raises(FusionInputError, match=message):
        parse_rekognition_tracks(pages)


def test_a_video_without_faces_has_no_tracks() -> None:
    assert parse_rekognition_tracks([page()]) == ()
