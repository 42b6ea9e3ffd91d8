"""Encodes responses: converts the server's own types to messages, and adds the start offset to their times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from gorggle.v1 import config_pb2, lip_reading_pb2, media_pb2, transcript_pb2
from gorggle_server.events import (
    Activity,
    ActivityKind,
    Draining,
    Event,
    FaceBox,
    Finished,
    Heartbeat,
    Hypothesis,
    MediaInfo,
    Progress,
    Segment,
    StreamWarning,
    Transcript,
    WarningKind,
    Word,
    WordSource,
)
from gorggle_server.recognition_options import Modality, RecognitionOptions

_MODALITIES = {
    Modality.AUDIO_VISUAL: config_pb2.MODALITY_AUDIO_VISUAL,
    Modality.VIDEO_ONLY: config_pb2.MODALITY_VIDEO_ONLY,
    Modality.AUDIO_ONLY: config_pb2.MODALITY_AUDIO_ONLY,
}
_WARNING_KINDS = {kind: lip_reading_pb2.Warning.Kind.Value(f"KIND_{kind.name}") for kind in WarningKind}
_WORD_SOURCES: dict[WordSource | None, transcript_pb2.WordSource.ValueType] = {
    source: transcript_pb2.WordSource.Value(f"WORD_SOURCE_{source.name if source else 'UNSPECIFIED'}")
    for source in (None, *WordSource)
}
_SPEECH_ACTIVITIES = {
    ActivityKind.SPEECH_BEGIN: lip_reading_pb2.SpeechActivityEvent.SPEECH_ACTIVITY_BEGIN,
    ActivityKind.SPEECH_END: lip_reading_pb2.SpeechActivityEvent.SPEECH_ACTIVITY_END,
}


def encode_duration(seconds: float) -> Duration:
    """Return seconds as a Duration, rounded to microseconds."""
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


@dataclass(frozen=True)
class StreamPosition:
    """Progress of a stream.

    Attributes:
        bytes_received: media bytes received.
        final_end_s: end of the media for which everything is final and sent.
        acknowledged_sequence: number of the last request that will not be needed again.
        resume_token: token to resume the stream with.
    """

    bytes_received: int
    final_end_s: float
    acknowledged_sequence: int
    resume_token: bytes


def encode_event(
    event: Event, options: RecognitionOptions, position: StreamPosition
) -> lip_reading_pb2.StreamingRecognizeResponse:
    """Encode one event of a stream."""
    start_offset_s = options.start_offset_s
    response = lip_reading_pb2.StreamingRecognizeResponse(
        final_end_offset=encode_duration(position.final_end_s + start_offset_s)
    )
    match event:
        case MediaInfo():
            response.media_info.CopyFrom(encode_media_info(event))
        case Segment():
            response.segment.CopyFrom(encode_segment(event, start_offset_s))
        case Activity():
            response.speech_activity.type = _SPEECH_ACTIVITIES[event.kind]
            response.speech_activity.offset.CopyFrom(encode_duration(event.offset_s + start_offset_s))
            response.speech_activity.speaker_id = event.speaker_id
        case Progress():
            response.progress.received_bytes = position.bytes_received
            response.progress.acknowledged_sequence = position.acknowledged_sequence
            response.progress.resume_token = position.resume_token
            response.progress.received_duration.CopyFrom(encode_duration(event.received_s))
            response.progress.processed_duration.CopyFrom(encode_duration(event.processed_s))
            response.progress.face_count = event.faces
        case StreamWarning():
            response.warning.CopyFrom(encode_warning(event))
        case Finished():
            response.finished.media_duration.CopyFrom(encode_duration(event.duration_s))
            response.finished.segment_count = event.segments
            response.finished.face_count = event.faces
        case Draining():
            response.server_draining.deadline.CopyFrom(encode_duration(event.deadline_s))
            response.server_draining.acknowledged_sequence = position.acknowledged_sequence
            response.server_draining.resume_token = position.resume_token
        case Heartbeat():
            response.heartbeat.SetInParent()
    return response


def encode_started(
    request_id: str, options: RecognitionOptions, session_id: str, heartbeat_interval_s: float
) -> lip_reading_pb2.StreamingRecognizeResponse:
    """Encode the first message of a stream."""
    started = lip_reading_pb2.StreamStarted(
        request_id=request_id,
        model=options.model,
        audio_model=options.audio_model,
        session_id=session_id,
        heartbeat_interval=encode_duration(heartbeat_interval_s),
    )
    return lip_reading_pb2.StreamingRecognizeResponse(started=started)


def encode_recognize_response(
    transcript: Transcript, options: RecognitionOptions, request_id: str
) -> lip_reading_pb2.RecognizeResponse:
    """Encode the response of a unary call."""
    return lip_reading_pb2.RecognizeResponse(
        request_id=request_id,
        model=options.model,
        audio_model=options.audio_model,
        media_info=None if transcript.media_info is None else encode_media_info(transcript.media_info),
        segments=[encode_segment(segment, options.start_offset_s) for segment in transcript.segments],
        warnings=[encode_warning(warning) for warning in transcript.warnings],
        media_duration=encode_duration(transcript.duration_s),
    )


def encode_media_info(info: MediaInfo) -> media_pb2.MediaInfo:
    """Encode the properties of the media."""
    return media_pb2.MediaInfo(
        container=info.container,
        video_codec=info.video_codec,
        audio_codec=info.audio_codec,
        width_px=info.width_px,
        height_px=info.height_px,
        frame_rate_hertz=info.frame_rate_hz,
        duration=None if info.duration_s is None else encode_duration(info.duration_s),
        rotation_degrees=info.rotation_degrees,
    )


def encode_segment(segment: Segment, start_offset_s: float) -> transcript_pb2.SpeechSegment:
    """Encode a segment, with ``start_offset_s`` added to its times."""
    return transcript_pb2.SpeechSegment(
        segment_id=segment.segment_id,
        revision=segment.revision,
        is_final=segment.is_final,
        stability=segment.stability,
        start_offset=encode_duration(segment.start_s + start_offset_s),
        end_offset=encode_duration(segment.end_s + start_offset_s),
        text=segment.best.text,
        confidence=segment.best.confidence,
        words=_encode_words(segment.best.words, start_offset_s),
        alternatives=[_encode_alternative(hypothesis, start_offset_s) for hypothesis in segment.alternatives],
        speaker_id=segment.speaker_id,
        face_boxes=[_encode_face_box(box, start_offset_s) for box in segment.face_boxes],
        modality=_MODALITIES[segment.modality],
        stable_word_count=segment.stable_words,
        is_doubtful=segment.is_doubtful,
    )


def encode_warning(warning: StreamWarning) -> lip_reading_pb2.Warning:
    """Encode a warning."""
    return lip_reading_pb2.Warning(kind=_WARNING_KINDS[warning.kind], message=warning.message)


def _encode_alternative(hypothesis: Hypothesis, start_offset_s: float) -> transcript_pb2.Alternative:
    return transcript_pb2.Alternative(
        text=hypothesis.text,
        confidence=hypothesis.confidence,
        words=_encode_words(hypothesis.words, start_offset_s),
    )


def _encode_words(words: Iterable[Word], start_offset_s: float) -> list[transcript_pb2.Word]:
    return [
        transcript_pb2.Word(
            text=word.text,
            start_offset=encode_duration(word.start_s + start_offset_s),
            end_offset=encode_duration(word.end_s + start_offset_s),
            confidence=word.confidence,
            source=_WORD_SOURCES[word.source],
        )
        for word in words
    ]


def _encode_face_box(box: FaceBox, start_offset_s: float) -> transcript_pb2.FaceBox:
    return transcript_pb2.FaceBox(
        offset=encode_duration(box.offset_s + start_offset_s),
        left=box.left,
        top=box.top,
        width=box.width,
        height=box.height,
    )
