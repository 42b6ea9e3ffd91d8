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
    NoiseStretch,
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


def lip_window(document: object) -> Window:
    """Read what the server read in one window: from the lips, or from lips and sound together.

    Raises:
        FusionInputError: see there; so for every function here.
    """
    return _window(JsonReader.of(document, "the lip reading"), default_modality="video")


def sound_window(document: object) -> Window:
    """Read what the server's audio mode heard in one window.

    Raises:
        FusionInputError: also where a segment was not read from the sound alone.
    """
    window = _window(JsonReader.of(document, "the sound's transcript"), default_modality="audio")
    for index, segment in enumerate(window.segments):
        if segment.origin != "sound":
            raise FusionInputError(
                f"the sound's transcript: segments[{index}] was read from the picture too; expected modality audio"
            )
    return window


def face_tracks(document: object) -> tuple[FaceTrack, ...]:
    """Read the server's face tracks: ``{"tracks": [{"face": "face-1", "boxes": [...]}]}``."""
    fields = JsonReader.of(document, "the face tracks")
    fields.only("tracks")
    tracks = [_track(track) for track in fields.objects("tracks")]
    names = [track.name for track in tracks]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise FusionInputError(f"the face tracks: {', '.join(twice)} come twice; expected one track a face")
    return tuple(tracks)


def noise_stretches(document: object) -> tuple[NoiseStretch, ...]:
    """Read measured noise: ``{"stretches": [{"start": 0, "end": 10, "snr_db": 12.5}]}``, in order, apart."""
    fields = JsonReader.of(document, "the noise")
    fields.only("stretches")
    stretches: list[NoiseStretch] = []
    for item in fields.objects("stretches"):
        item.only("start", "end", "snr_db")
        start_s, end_s = _times(item)
        if stretches and start_s < stretches[-1].end_s:
            raise item.wrong("start", f"{stretches[-1].end_s:g} or later: stretches follow each other")
        stretches.append(NoiseStretch(start_s, end_s, item.number("snr_db")))
    return tuple(stretches)


def failures(document: object) -> tuple[SourceFailure, ...]:
    """Read what failed: ``{"failures": [{"source": "lips", "reason": "...", "start": 0, "end": 60}]}``."""
    fields = JsonReader.of(document, "the failures")
    fields.only("failures")
    return tuple(_failure(item) for item in fields.objects("failures"))


def media(document: object) -> Media:
    """Read what the container holds."""
    fields = JsonReader.of(document, "the media")
    sizes = ("width_px", "height_px")
    fields.only("duration_s", "name", *sizes, "frame_rate_hz", "video_codec", "audio_codec")
    width_px, height_px = (int(fields.number(size, 0, least=0, most=1e6)) for size in sizes)
    return Media(
        duration_s=fields.number("duration_s", least=0),
        name=fields.text("name", ""),
        width_px=width_px,
        height_px=height_px,
        frame_rate_hz=fields.number("frame_rate_hz", 0, least=0),
        video_codec=fields.text("video_codec", ""),
        audio_codec=fields.text("audio_codec", ""),
    )


def model(document: object) -> Model:
    """Read the model's name and licence: ``{"name": ..., "licence": ..., "licence_summary": ..., "licence_url": ...}``."""
    fields = JsonReader.of(document, "the model")
    fields.only("name", "licence", "licence_summary", "licence_url")
    summary, url = fields.text("licence_summary", ""), fields.text("licence_url", "")
    return Model(fields.text("name"), fields.text("licence"), summary, url)


def _window(fields: JsonReader, default_modality: str) -> Window:
    fields.only("start", "end", "segments", "file", "duration", "model")
    start_s, end_s = _times(fields)
    segments = tuple(_segment(item, default_modality) for item in fields.objects("segments"))
    return Window(start_s, end_s, segments)


def _segment(fields: JsonReader, default_modality: str) -> Segment:
    fields.only(
        "start", "end", "text", "speaker", "confidence", "words", "modality", "face_boxes", "segment_id"
    )
    start_s, end_s = _times(fields)
    words = tuple(_word(item) for item in fields.objects("words"))
    if not words and fields.text("text", "").strip():
        raise fields.wrong("words", "the words of its text with their times: ask the server for word times")
    speaker = fields.text("speaker", UNKNOWN_SPEAKER)
    boxes = [_box(item) for item in fields.objects("face_boxes", required=False)]
    return Segment(
        start_s,
        end_s,
        UNKNOWN_SPEAKER if speaker == UNSEEN_SPEAKER else speaker,
        ORIGINS[fields.choice("modality", *ORIGINS, default=default_modality)],
        words,
        tuple(sorted(boxes, key=lambda box: box.time_s)),
    )


def _word(fields: JsonReader) -> Word:
    fields.only("start", "end", "text", "confidence")
    text = " ".join(fields.text("text").split())
    if not text:
        raise fields.wrong("text", "a word")
    start_s, end_s = _times(fields)
    return Word(text, start_s, end_s, fields.number("confidence", least=0, most=1))


def _box(fields: JsonReader) -> FaceBox:
    fields.only("time", "left", "top", "width", "height")
    return FaceBox(
        fields.number("time", least=0),
        fields.number("left"),
        fields.number("top"),
        fields.number("width", least=0),
        fields.number("height", least=0),
    )


def _track(fields: JsonReader) -> FaceTrack:
    fields.only("face", "boxes")
    boxes = sorted((_box(item) for item in fields.objects("boxes")), key=lambda box: box.time_s)
    if not boxes:
        raise fields.wrong("boxes", "at least one box")
    return FaceTrack(fields.text("face"), tuple(boxes))


def _failure(fields: JsonReader) -> SourceFailure:
    fields.only("source", "reason", "start", "end")
    source = cast("SourceName", fields.choice("source", "lips", "sound", "faces"))
    reason = fields.text("reason").strip()
    if not reason:
        raise fields.wrong("reason", "why it failed: it is shown to people")
    if fields.has("start") != fields.has("end"):
        raise FusionInputError(f"{fields.where} has one of start and end; expected both or neither")
    return SourceFailure(source, reason, *(_times(fields) if fields.has("start") else (None, None)))


def _times(fields: JsonReader) -> tuple[float, float]:
    start_s = fields.number("start", least=0)
    return start_s, fields.number("end", least=start_s)
