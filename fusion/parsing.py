"""Parsers of Gorggle's own JSON documents: transcribed windows, noise, media, model.

Segments have the fields of the SDK's ``Transcript.to_json`` (``start``, ``end``, ``text``, ``speaker``, ``confidence``,
``doubtful``, ``words``) plus ``modality`` and ``face_boxes``; a window adds its ``start`` and ``end``. Unknown fields are
rejected, because only this project writes these documents. Every function raises ``FusionInputError`` for an invalid document.
"""

from __future__ import annotations

from gorggle_fusion.errors import FusionInputError
from gorggle_fusion.json_fields import JsonReader
from gorggle_fusion.types import (
    UNKNOWN_SPEAKER,
    FaceBox,
    Media,
    Model,
    NoiseSpan,
    Origin,
    Segment,
    Window,
    Word,
)

ORIGINS: dict[str, Origin] = {"video": "lips", "audio": "audio", "av": "both"}
_WORD_ORIGINS: dict[str, Origin | None] = {"": None, "lips": "lips", "audio": "audio", "both": "both"}
# The server's label of a speaker without a visible face.
UNSEEN_SPEAKER = "voice"


def parse_lip_window(document: object) -> Window:
    """Parse one window transcribed in a lip reading mode: from video, or from audio and video."""
    return _parse_window(JsonReader.parse(document, "the lip reading"), default_modality="video")


def parse_audio_window(document: object) -> Window:
    """Parse one window transcribed in audio mode; segments of other modalities are rejected."""
    window = _parse_window(JsonReader.parse(document, "the audio transcript"), default_modality="audio")
    for index, segment in enumerate(window.segments):
        if segment.origin != "audio":
            raise FusionInputError(
                f"the audio transcript: segments[{index}] has another modality; expected audio"
            )
    return window


def parse_noise(document: object) -> tuple[NoiseSpan, ...]:
    """Parse measured noise: ``{"spans": [{"start": 0, "end": 10, "snr_db": 12.5}]}``, sorted, without overlaps."""
    fields = JsonReader.parse(document, "the noise")
    fields.reject_unknown("spans")
    spans: list[NoiseSpan] = []
    for item in fields.get_objects("spans"):
        item.reject_unknown("start", "end", "snr_db")
        start_s, end_s = _parse_times(item)
        if spans and start_s < spans[-1].end_s:
            raise item.make_error(
                "start", f"{spans[-1].end_s:g} or later: expected sorted spans without overlaps"
            )
        spans.append(NoiseSpan(start_s, end_s, item.get_number("snr_db")))
    return tuple(spans)


def parse_media(document: object) -> Media:
    """Parse the properties of the container."""
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
    """Parse a model: ``{"name", "licence", "licence_summary", "licence_url", "has_open_vocabulary"}``."""
    fields = JsonReader.parse(document, "the model")
    fields.reject_unknown("name", "licence", "licence_summary", "licence_url", "has_open_vocabulary")
    return Model(
        fields.get_text("name"),
        fields.get_text("licence"),
        fields.get_text("licence_summary", ""),
        fields.get_text("licence_url", ""),
        fields.get_bool("has_open_vocabulary", default=True),
    )


def _parse_window(fields: JsonReader, default_modality: str) -> Window:
    fields.reject_unknown("start", "end", "segments", "file", "duration", "model", "audio_model")
    start_s, end_s = _parse_times(fields)
    segments = tuple(_parse_segment(item, default_modality) for item in fields.get_objects("segments"))
    return Window(start_s, end_s, segments)


def _parse_segment(fields: JsonReader, default_modality: str) -> Segment:
    fields.reject_unknown(
        *("start", "end", "text", "speaker", "confidence", "doubtful", "words"),
        *("modality", "face_boxes", "segment_id"),
    )
    start_s, end_s = _parse_times(fields)
    words = tuple(_parse_word(item) for item in fields.get_objects("words"))
    if not words and fields.get_text("text", "").strip():
        raise fields.make_error("words", "the words of its text: request word timestamps")
    speaker = fields.get_text("speaker", UNKNOWN_SPEAKER)
    boxes = [_parse_box(item) for item in fields.get_objects("face_boxes", required=False)]
    return Segment(
        start_s,
        end_s,
        UNKNOWN_SPEAKER if speaker == UNSEEN_SPEAKER else speaker,
        ORIGINS[fields.get_choice("modality", *ORIGINS, default=default_modality)],
        words,
        tuple(sorted(boxes, key=lambda box: box.time_s)),
        fields.get_bool("doubtful", default=False),
    )


def _parse_word(fields: JsonReader) -> Word:
    fields.reject_unknown("start", "end", "text", "confidence", "source")
    text = " ".join(fields.get_text("text").split())
    if not text:
        raise fields.make_error("text", "a word")
    start_s, end_s = _parse_times(fields)
    confidence = fields.get_number("confidence", minimum=0, maximum=1)
    origin = _WORD_ORIGINS[fields.get_choice("source", *_WORD_ORIGINS, default="")]
    return Word(text, start_s, end_s, confidence, origin=origin)


def _parse_box(fields: JsonReader) -> FaceBox:
    fields.reject_unknown("time", "left", "top", "width", "height")
    return FaceBox(
        fields.get_number("time", minimum=0),
        fields.get_number("left"),
        fields.get_number("top"),
        fields.get_number("width", minimum=0),
        fields.get_number("height", minimum=0),
    )


def _parse_times(fields: JsonReader) -> tuple[float, float]:
    start_s = fields.get_number("start", minimum=0)
    return start_s, fields.get_number("end", minimum=start_s)
