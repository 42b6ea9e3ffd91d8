"""Decodes responses to the SDK's types. Only this module reads protobuf messages."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from gorggle.events import (
    Activity,
    Event,
    Finished,
    MediaInfo,
    Progress,
    ServerDraining,
    Started,
    StreamWarning,
    WarningKind,
)
from gorggle.results import (
    Alternative,
    FaceBox,
    Modality,
    Segment,
    Transcript,
    Word,
    WordSource,
    sort_segments,
)
from gorggle.server_info import (
    CommercialUse,
    ErrorRate,
    Model,
    ModelLicense,
    ServerCapacity,
    ServerInfo,
    ServerLimits,
)
from gorggle.v1 import config_pb2, lip_reading_pb2, model_pb2, transcript_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message

    from gorggle.v1 import media_pb2, server_pb2

T = TypeVar("T")

_MODALITIES: dict[int, Modality] = {
    config_pb2.MODALITY_AUDIO_VISUAL: "av",
    config_pb2.MODALITY_VIDEO_ONLY: "video",
    config_pb2.MODALITY_AUDIO_ONLY: "audio",
}
_COMMERCIAL_USE: dict[int, CommercialUse] = {
    model_pb2.COMMERCIAL_USE_PERMITTED: "permitted",
    model_pb2.COMMERCIAL_USE_FORBIDDEN: "forbidden",
}
_ACTIVITIES: dict[int, Literal["speech_begin", "speech_end"]] = {
    lip_reading_pb2.SpeechActivityEvent.SPEECH_ACTIVITY_BEGIN: "speech_begin",
    lip_reading_pb2.SpeechActivityEvent.SPEECH_ACTIVITY_END: "speech_end",
}
_WORD_SOURCES: dict[int, WordSource] = {
    transcript_pb2.WORD_SOURCE_LIPS: "lips",
    transcript_pb2.WORD_SOURCE_AUDIO: "audio",
    transcript_pb2.WORD_SOURCE_BOTH: "both",
}
# Kinds from newer servers, unknown here, become "other" and keep their text.
_WARNINGS: dict[int, WarningKind] = {
    number: cast(WarningKind, name.removeprefix("KIND_").lower())
    for name, number in lip_reading_pb2.Warning.Kind.items()
    if number != lip_reading_pb2.Warning.KIND_UNSPECIFIED
}


def decode_response(message: lip_reading_pb2.StreamingRecognizeResponse) -> Segment | Event | None:
    """Return the segment or event in a response; None if this client does not know its kind."""
    match message.WhichOneof("event"):
        case "segment":
            return decode_segment(message.segment)
        case "started":
            return Started(message.started.request_id, message.started.model, message.started.audio_model)
        case "media_info":
            return decode_media_info(message.media_info)
        case "progress":
            progress = message.progress
            return Progress(
                bytes_received=progress.received_bytes,
                received_s=to_seconds(progress.received_duration),
                processed_s=to_seconds(progress.processed_duration),
                face_count=progress.face_count,
            )
        case "speech_activity":
            activity = message.speech_activity
            kind = _ACTIVITIES.get(activity.type)
            return Activity(kind, to_seconds(activity.offset), activity.speaker_id) if kind else None
        case "warning":
            return decode_warning(message.warning)
        case "finished":
            finished = message.finished
            return Finished(to_seconds(finished.media_duration), finished.segment_count, finished.face_count)
        case "server_draining":
            return ServerDraining(to_seconds(message.server_draining.deadline))
    return None


def decode_transcript(message: lip_reading_pb2.RecognizeResponse, file: str) -> Transcript:
    """Decode the response of a unary call."""
    return Transcript(
        file=file,
        duration_s=to_seconds(message.media_duration),
        model=message.model,
        audio_model=message.audio_model,
        segments=sort_segments(decode_segment(segment) for segment in message.segments),
        warnings=tuple(decode_warning(warning) for warning in message.warnings),
        request_id=message.request_id,
    )


def decode_segment(message: transcript_pb2.SpeechSegment) -> Segment:
    """Decode a segment."""
    return Segment(
        start_s=to_seconds(message.start_offset),
        end_s=to_seconds(message.end_offset),
        text=message.text,
        confidence=_clamp_probability(message.confidence),
        stability=_clamp_probability(message.stability),
        is_final=message.is_final,
        segment_id=message.segment_id,
        revision=message.revision,
        speaker=message.speaker_id,
        words=_decode_words(message.words),
        alternatives=tuple(
            Alternative(other.text, _clamp_probability(other.confidence), _decode_words(other.words))
            for other in message.alternatives
        ),
        face_boxes=tuple(
            FaceBox(to_seconds(box.offset), box.left, box.top, box.width, box.height)
            for box in message.face_boxes
        ),
        modality=_MODALITIES.get(message.modality, "av"),
        stable_words=message.stable_word_count,
        is_doubtful=message.is_doubtful,
    )


def decode_media_info(message: media_pb2.MediaInfo) -> MediaInfo:
    """Decode the properties of the media."""
    duration_s = to_seconds(message.duration) if message.HasField("duration") else None
    return _copy_fields(MediaInfo, message, duration_s=duration_s)


def decode_warning(message: lip_reading_pb2.Warning) -> StreamWarning:
    """Decode a warning."""
    return StreamWarning(_WARNINGS.get(message.kind, "other"), message.message)


def decode_model(message: model_pb2.Model) -> Model:
    """Decode the description of a model."""
    commercial_use = _COMMERCIAL_USE.get(message.license.commercial_use, "unknown")
    return _copy_fields(
        Model,
        message,
        encoder_layers=message.encoder_layer_count,
        decoder_layers=message.decoder_layer_count,
        modalities=tuple(_MODALITIES[value] for value in message.modalities if value in _MODALITIES),
        language_codes=tuple(message.language_codes),
        error_rates=tuple(
            _copy_fields(ErrorRate, rate, modality=_MODALITIES.get(rate.modality, "av"))
            for rate in message.error_rates
        ),
        license=_copy_fields(ModelLicense, message.license, commercial_use=commercial_use),
    )


def decode_server_info(message: server_pb2.GetServerInfoResponse) -> ServerInfo:
    """Decode the description of a server."""
    return _copy_fields(
        ServerInfo,
        message,
        limits=_copy_fields(ServerLimits, message.limits),
        capacity=_copy_fields(ServerCapacity, message.capacity),
    )


def _copy_fields(kind: type[T], message: Message, **others: Any) -> T:
    """Return a dataclass whose fields, except ``others``, are the message's fields of the same names.

    Units are part of the dataclass's names: its ``limit_s`` is the Duration ``limit``, ``rate_hz`` is ``rate_hertz``.
    """
    for name in {field.name for field in dataclasses.fields(cast(Any, kind))} - others.keys():
        if name.endswith("_s"):
            others[name] = to_seconds(getattr(message, name.removesuffix("_s")))
        else:
            others[name] = getattr(message, re.sub("_hz$", "_hertz", name))
    return kind(**others)


def to_seconds(duration: Duration) -> float:
    """Return a protobuf Duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def _decode_words(messages: Iterable[transcript_pb2.Word]) -> tuple[Word, ...]:
    return tuple(
        Word(
            word.text,
            to_seconds(word.start_offset),
            to_seconds(word.end_offset),
            _clamp_probability(word.confidence),
            _WORD_SOURCES.get(word.source, ""),
        )
        for word in messages
    )


def _clamp_probability(value: float) -> float:
    """Clamp to 0..1; NaN and infinity, which JSON cannot represent, become 0."""
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
