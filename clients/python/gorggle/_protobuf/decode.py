"""Decodes responses to the SDK's types. Only this module reads protobuf messages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

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
from gorggle.results import Alternative, FaceBox, Modality, Segment, Transcript, Word, sort_segments
from gorggle.server_info import (
    CommercialUse,
    ErrorRate,
    Model,
    ModelLicense,
    ServerCapacity,
    ServerInfo,
    ServerLimits,
)
from gorggle.v1 import config_pb2, lip_reading_pb2, model_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from gorggle.v1 import media_pb2, server_pb2, transcript_pb2

_MODALITIES: dict[int, Modality] = {
    config_pb2.MODALITY_AUDIO_VISUAL: "av",
    config_pb2.MODALITY_VIDEO_ONLY: "video",
    config_pb2.MODALITY_AUDIO_ONLY: "audio",
}
_COMMERCIAL_USE: dict[int, CommercialUse] = {
    model_pb2.COMMERCIAL_USE_PERMITTED: "permitted",
    model_pb2.COMMERCIAL_USE_FORBIDDEN: "forbidden",
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
            return Started(message.started.request_id, message.started.model)
        case "media_info":
            return decode_media_info(message.media_info)
        case "progress":
            return _decode_progress(message.progress)
        case "speech_activity":
            return _decode_activity(message.speech_activity)
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
    )


def decode_media_info(message: media_pb2.MediaInfo) -> MediaInfo:
    """Decode the properties of the media."""
    return MediaInfo(
        container=message.container,
        video_codec=message.video_codec,
        audio_codec=message.audio_codec,
        width_px=message.width_px,
        height_px=message.height_px,
        frame_rate_hz=message.frame_rate_hertz,
        duration_s=to_seconds(message.duration) if message.HasField("duration") else None,
        rotation_degrees=message.rotation_degrees,
    )


def decode_warning(message: lip_reading_pb2.Warning) -> StreamWarning:
    """Decode a warning."""
    return StreamWarning(_WARNINGS.get(message.kind, "other"), message.message)


def decode_model(message: model_pb2.Model) -> Model:
    """Decode the description of a model."""
    license_ = message.license
    return Model(
        name=message.name,
        description=message.description,
        architecture=message.architecture,
        parameter_count=message.parameter_count,
        encoder_layers=message.encoder_layer_count,
        encoder_width=message.encoder_width,
        decoder_layers=message.decoder_layer_count,
        decoder_width=message.decoder_width,
        vocabulary_size=message.vocabulary_size,
        modalities=tuple(_MODALITIES[value] for value in message.modalities if value in _MODALITIES),
        video_frame_rate_hz=message.video_frame_rate_hertz,
        audio_sample_rate_hz=message.audio_sample_rate_hertz,
        mouth_crop_size_px=message.mouth_crop_size_px,
        language_codes=tuple(message.language_codes),
        vocabulary=message.vocabulary,
        trained_on=message.trained_on,
        error_rates=tuple(_decode_error_rate(rate) for rate in message.error_rates),
        license=ModelLicense(
            license_.name,
            license_.url,
            _COMMERCIAL_USE.get(license_.commercial_use, "unknown"),
            license_.summary,
        ),
        sha256=message.sha256,
        supports_automatic_punctuation=message.supports_automatic_punctuation,
        supports_adaptation=message.supports_adaptation,
    )


def decode_server_info(message: server_pb2.GetServerInfoResponse) -> ServerInfo:
    """Decode the description of a server."""
    limits = message.limits
    return ServerInfo(
        version=message.version,
        default_model=message.default_model,
        device=message.device,
        uptime_s=to_seconds(message.uptime),
        limits=ServerLimits(
            max_message_bytes=limits.max_message_bytes,
            max_stream_duration_s=to_seconds(limits.max_stream_duration),
            max_clip_duration_s=to_seconds(limits.max_clip_duration),
            max_spooled_bytes=limits.max_spooled_bytes,
            max_frame_pixels=limits.max_frame_pixels,
            max_speakers=limits.max_speakers,
            max_beam_size=limits.max_beam_size,
            idle_timeout_s=to_seconds(limits.idle_timeout),
            media_timeout_s=to_seconds(limits.media_timeout),
            max_utterance_s=to_seconds(limits.max_utterance),
        ),
        capacity=ServerCapacity(message.capacity.max_streams, message.capacity.active_streams),
    )


def to_seconds(duration: Duration) -> float:
    """Return a protobuf Duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def _decode_error_rate(message: model_pb2.ErrorRate) -> ErrorRate:
    return ErrorRate(
        dataset=message.dataset,
        modality=_MODALITIES.get(message.modality, "av"),
        condition=message.condition,
        word_error_rate_percent=message.word_error_rate_percent,
        source=message.source,
    )


def _decode_progress(message: lip_reading_pb2.Progress) -> Progress:
    return Progress(
        bytes_received=message.received_bytes,
        received_s=to_seconds(message.received_duration),
        processed_s=to_seconds(message.processed_duration),
        face_count=message.face_count,
    )


def _decode_activity(message: lip_reading_pb2.SpeechActivityEvent) -> Activity | None:
    match message.type:
        case lip_reading_pb2.SpeechActivityEvent.SPEECH_ACTIVITY_BEGIN:
            return Activity("speech_begin", to_seconds(message.offset), message.speaker_id)
        case lip_reading_pb2.SpeechActivityEvent.SPEECH_ACTIVITY_END:
            return Activity("speech_end", to_seconds(message.offset), message.speaker_id)
    return None


def _decode_words(messages: Iterable[transcript_pb2.Word]) -> tuple[Word, ...]:
    return tuple(
        Word(
            word.text,
            to_seconds(word.start_offset),
            to_seconds(word.end_offset),
            _clamp_probability(word.confidence),
        )
        for word in messages
    )


def _clamp_probability(value: float) -> float:
    """Clamp to 0..1; NaN and infinity, which JSON cannot represent, become 0."""
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
