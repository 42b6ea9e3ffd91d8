"""Gorggle's own JSON documents: windows of segments, face tracks, noise, failures, media, model.

Segments are written as the SDK's ``Transcript.to_json`` writes them (``start``, ``end``, ``text``, ``speaker``,
``confidence``, ``words``), with ``modality`` and ``face_boxes`` beside, and with the window's ``start`` and ``end``
around them. Unknown fields are refused: these documents are written by this project alone.
"""

from __future__ import annotations

from typing import cast

from gorggle_lambdas.fusion.errors import FusionInputError
from gorggle_lambdas.fusion.json_fields import JsonReader
from gorggle_lambdas.fusion.types import (
    UNKNOWN_SPEAKER,
    FaceBox,
    FaceTrack,
    Media,
    Model,
    NoiseSpan,
    Origin,
    Segment,
    SourceFailure,
    SourceName,
    Window,
    Word,
)

ORIGINS: dict[str, Origin] = {"video": "lips", "audio": "sound", "av": "both"}
# The server's name for a speaker whose face was not seen.
UNSEEN_SPEAKER = "voice"


def parse_lip_window(document: object) -> Window:
    """Read what the server read in one window: from the lips, or from lips and sound together.

    Raises:
        FusionInputError: see there; so for every function here.
    """
    return _parse_window(JsonReader.parse(document, "the lip reading"), default_modality="video")


def parse_audio_window(document: object) -> Window:
    """Read what the server's audio mode heard in one window.

    Raises:
        FusionInputError: also where a segment was not read from the sound alone.
    """
    window = _parse_window(JsonReader.parse(document, "the sound's transcript"), default_modality="audio")
    for index, segment in enumerate(window.segments):
        if segment.origin != "sound":
            raise FusionInputError(
                f"the sound's transcript: segments[{index}] was read from the picture too; expected modality audio"
            )
    return window


def parse_face_tracks(document: object) -> tuple[FaceTrack, ...]:
    """Read the server's face tracks: ``{"tracks": [{"face": "face-1", "boxes": [...]}]}``."""
    fields = JsonReader.parse(document, "the face tracks")
    fields.reject_unknown("tracks")
    tracks = [_parse_track(track) for track in fields.get_objects("tracks")]
    names = [track.name for track in tracks]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise FusionInputError(f"the face tracks: {', '.join(twice)} come twice; expected one track a face")
    return tuple(tracks)


def parse_noise(document: object) -> tuple[NoiseSpan, ...]:
    """Read measured noise: ``{"stretches": [{"start": 0, "end": 10, "snr_db": 12.5}]}``, in order, apart."""
    fields = JsonReader.parse(document, "the noise")
    fields.reject_unknown("stretches")
    stretches: list[NoiseSpan] = []
    for item in fields.get_objects("stretches"):
        item.reject_unknown("start", "end", "snr_db")
        start_s, end_s = _parse_times(item)
        if stretches and start_s < stretches[-1].end_s:
            raise item.make_error("start", f"{stretches[-1].end_s:g} or later: stretches follow each other")
        stretches.append(NoiseSpan(start_s, end_s, item.get_number("snr_db")))
    return tuple(stretches)


def parse_failures(document: object) -> tuple[SourceFailure, ...]:
    """Read what failed: ``{"failures": [{"source": "lips", "reason": "...", "start": 0, "end": 60}]}``."""
    fields = JsonReader.parse(document, "the failures")
    fields.reject_unknown("failures")
    return tuple(_parse_failure(item) for item in fields.get_objects("failures"))


def parse_media(document: object) -> Media:
    """Read what the container holds."""
    fields = JsonReader.parse(document, "the media")
    sizes = ("width_px", "height_px")
    fields.reject_unknown("duration_s", "name", *sizes, "frame_rate_hz", "video_codec", "audio_codec")
    width_px, height_px = (int(fields.get_number(size, 0, minimum=0, maximum=1e6)) for size in sizes)
    return Media(
        duration_s=fields.get_number("duration_s", minimum=0),
        name=fields.get_text("name", ""),
        width_px=width_px,
        height_px=height_px,
        frame_rate_hz=fields.get_number("frame_rate_hz", 0, minimum=0),
        video_codec=fields.get_text("video_codec", ""),
        audio_codec=fields.get_text("audio_codec", ""),
    )


def parse_model(document: object) -> Model:
    """Read the model's name and licence: ``{"name": ..., "licence": ..., "licence_summary": ..., "licence_url": ...}``."""
    fields = JsonReader.parse(document, "the model")
    fields.reject_unknown("name", "licence", "licence_summary", "licence_url")
    summary, url = fields.get_text("licence_summary", ""), fields.get_text("licence_url", "")
    return Model(fields.get_text("name"), fields.get_text("licence"), summary, url)


def _parse_window(fields: JsonReader, default_modality: str) -> Window:
    fields.reject_unknown("start", "end", "segments", "file", "duration", "model")
    start_s, end_s = _parse_times(fields)
    segments = tuple(_parse_segment(item, default_modality) for item in fields.get_objects("segments"))
    return Window(start_s, end_s, segments)


def _parse_segment(fields: JsonReader, default_modality: str) -> Segment:
    fields.reject_unknown(
        "start", "end", "text", "speaker", "confidence", "words", "modality", "face_boxes", "segment_id"
    )
    start_s, end_s = _parse_times(fields)
    words = tuple(_parse_word(item) for item in fields.get_objects("words"))
    if not words and fields.get_text("text", "").strip():
        raise fields.make_error(
            "words", "the words of its text with their times: ask the server for word times"
        )
    speaker = fields.get_text("speaker", UNKNOWN_SPEAKER)
    boxes = [_parse_box(item) for item in fields.get_objects("face_boxes", required=False)]
    return Segment(
        start_s,
        end_s,
        UNKNOWN_SPEAKER if speaker == UNSEEN_SPEAKER else speaker,
        ORIGINS[fields.get_choice("modality", *ORIGINS, default=default_modality)],
        words,
        tuple(sorted(boxes, key=lambda box: box.time_s)),
    )


def _parse_word(fields: JsonReader) -> Word:
    fields.reject_unknown("start", "end", "text", "confidence")
    text = " ".join(fields.get_text("text").split())
    if not text:
        raise fields.make_error("text", "a word")
    start_s, end_s = _parse_times(fields)
    return Word(text, start_s, end_s, fields.get_number("confidence", minimum=0, maximum=1))


def _parse_box(fields: JsonReader) -> FaceBox:
    fields.reject_unknown("time", "left", "top", "width", "height")
    return FaceBox(
        fields.get_number("time", minimum=0),
        fields.get_number("left"),
        fields.get_number("top"),
        fields.get_number("width", minimum=0),
        fields.get_number("height", minimum=0),
    )


def _parse_track(fields: JsonReader) -> FaceTrack:
    fields.reject_unknown("face", "boxes")
    boxes = sorted((_parse_box(item) for item in fields.get_objects("boxes")), key=lambda box: box.time_s)
    if not boxes:
        raise fields.make_error("boxes", "at least one box")
    return FaceTrack(fields.get_text("face"), tuple(boxes))


def _parse_failure(fields: JsonReader) -> SourceFailure:
    fields.reject_unknown("source", "reason", "start", "end")
    source = cast("SourceName", fields.get_choice("source", "lips", "sound", "faces"))
    reason = fields.get_text("reason").strip()
    if not reason:
        raise fields.make_error("reason", "why it failed: it is shown to people")
    if fields.has("start") != fields.has("end"):
        raise FusionInputError(f"{fields.location} has one of start and end; expected both or neither")
    return SourceFailure(source, reason, *(_parse_times(fields) if fields.has("start") else (None, None)))


def _parse_times(fields: JsonReader) -> tuple[float, float]:
    start_s = fields.get_number("start", minimum=0)
    return start_s, fields.get_number("end", minimum=start_s)
