"""The border between protobuf and the server's own types: every message is read and written here, and checked."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from google.protobuf.duration_pb2 import Duration
from gorggle.v1 import config_pb2, lip_reading_pb2, media_pb2, transcript_pb2

from inference_server.elementary import Crops, Sound
from inference_server.errors import InvalidRequestError
from inference_server.live_results import OpenText
from inference_server.resumption import ResumePoint
from inference_server.transcript import (
    MOUTH_CROP_SIZE_PX,
    Activity,
    ActivityKind,
    Drain,
    Endpointing,
    Event,
    FaceBox,
    Finished,
    Heartbeat,
    MediaInfo,
    Modality,
    Progress,
    Reading,
    RecognitionOptions,
    Segment,
    StreamWarning,
    Transcript,
    WarningKind,
    Word,
)

if TYPE_CHECKING:
    from inference_server.settings import ServerSettings

MAX_ALTERNATIVES = 10
# A year: beyond it a start offset is a mistake, and times would lose their milliseconds.
MAX_START_OFFSET_S = 366 * 24 * 3600.0
DEFAULT_BEAM_SIZE = 5
# The least and the most that may be asked for, in seconds.
CLOSE_AFTER_SILENCE_S = 1.0, 3600.0
HEARTBEAT_INTERVAL_S = 0.1, 60.0
MAX_OPEN_SEGMENTS = 64

_MODALITIES = {
    config_pb2.MODALITY_UNSPECIFIED: Modality.AUDIO_VISUAL,
    config_pb2.MODALITY_AUDIO_VISUAL: Modality.AUDIO_VISUAL,
    config_pb2.MODALITY_VIDEO_ONLY: Modality.VIDEO_ONLY,
    config_pb2.MODALITY_AUDIO_ONLY: Modality.AUDIO_ONLY,
}
_MODALITY_MESSAGES = {
    Modality.AUDIO_VISUAL: config_pb2.MODALITY_AUDIO_VISUAL,
    Modality.VIDEO_ONLY: config_pb2.MODALITY_VIDEO_ONLY,
    Modality.AUDIO_ONLY: config_pb2.MODALITY_AUDIO_ONLY,
}
_WARNING_MESSAGES = {kind: lip_reading_pb2.Warning.Kind.Value(f"KIND_{kind.name}") for kind in WarningKind}
_ACTIVITY_MESSAGES = {
    kind: lip_reading_pb2.ActivityEvent.Kind.Value(f"KIND_{kind.name}") for kind in ActivityKind
}


# ---------------------------------------------------------------------------------------------------------- requests


def options_from(
    config: config_pb2.RecognitionConfig, default_model: str, limits: ServerSettings
) -> RecognitionOptions:
    """Read and check how a clip is to be read.

    Raises:
        InvalidRequestError: a value is beyond what the API allows.
    """
    if config.modality not in _MODALITIES:
        raise InvalidRequestError(
            f"modality {config.modality} is unknown: use a value of gorggle.v1.Modality"
        )
    _check_at_most("max_alternatives", config.max_alternatives, MAX_ALTERNATIVES)
    _check_at_most("max_speakers", config.max_speakers, limits.max_speakers)
    _check_at_most("beam_size", config.beam_size, limits.max_beam_size)
    length_penalty = config.length_penalty if config.HasField("length_penalty") else 1.0
    if not -2 <= length_penalty <= 5:
        raise InvalidRequestError(f"length_penalty is {length_penalty:g}: give a number from -2 to 5")
    start_offset_s = seconds_from(config.start_offset, "start_offset")
    if not 0 <= start_offset_s <= MAX_START_OFFSET_S:
        raise InvalidRequestError(f"start_offset is {start_offset_s:g} s: give 0 to {MAX_START_OFFSET_S:g} s")
    return RecognitionOptions(
        endpointing=_endpointing_from(config.endpointing, limits),
        model=config.model or default_model,
        modality=_MODALITIES[config.modality],
        word_times=config.enable_word_times,
        max_alternatives=config.max_alternatives,
        max_speakers=config.max_speakers or limits.max_speakers,
        beam_size=config.beam_size or min(DEFAULT_BEAM_SIZE, limits.max_beam_size),
        length_penalty=length_penalty,
        start_offset_s=start_offset_s,
        face_boxes=config.enable_face_boxes,
    )


def _endpointing_from(config: config_pb2.EndpointingConfig, limits: ServerSettings) -> Endpointing:
    defaults = Endpointing(max_utterance_s=limits.max_utterance_s)
    threshold = config.threshold if config.HasField("threshold") else defaults.threshold
    if not 0 < threshold < 1:
        raise InvalidRequestError(f"endpointing.threshold is {threshold:g}: give a number between 0 and 1")
    ranges = {
        "pause": (defaults.pause_s, 0.2, 5.0),
        "min_speech": (defaults.min_speech_s, 0.04, 2.0),
        "max_utterance": (defaults.max_utterance_s, 2.0, limits.max_utterance_s),
    }
    seconds = {}
    for name, (default_s, least_s, most_s) in ranges.items():
        seconds[f"{name}_s"] = default_s
        if config.HasField(name):  # type: ignore[arg-type]  # names from the table above
            given_s = seconds_from(getattr(config, name), f"endpointing.{name}")
            if not least_s <= given_s <= most_s:
                raise InvalidRequestError(
                    f"endpointing.{name} is {given_s:g} s: give {least_s:g} s to {most_s:g} s"
                )
            seconds[f"{name}_s"] = given_s
    return Endpointing(threshold=threshold, **seconds)


def streaming_options_from(
    config: config_pb2.StreamingConfig, default_model: str, limits: ServerSettings
) -> RecognitionOptions:
    """Read and check how a stream is to be read; see ``options_from``."""
    return dataclasses.replace(
        options_from(config.recognition, default_model, limits),
        interim_results=config.interim_results,
        activity_events=config.activity_events,
        live=config.live,
        close_after_silence_s=_seconds_within(config, "close_after_silence", *CLOSE_AFTER_SILENCE_S),
    )


def heartbeat_interval_s_from(config: config_pb2.StreamingConfig) -> float:
    """Read how often the client wants to hear from the server at least; 0: it does not care.

    Raises:
        InvalidRequestError: more often, or more rarely, than is allowed.
    """
    return _seconds_within(config, "heartbeat_interval", *HEARTBEAT_INTERVAL_S)


@dataclass(frozen=True)
class Resumption:
    """The session that a call carries on, where it is taken up, and what was sent of open utterances."""

    session_id: str
    point: ResumePoint
    open_texts: dict[str, OpenText]


def resumption_from(config: config_pb2.StreamingConfig) -> Resumption | None:
    """Read which session a call carries on; None: a new one.

    Raises:
        InvalidRequestError: no session id, a token that is none, more open utterances than there can be.
    """
    if not config.HasField("resume"):
        return None
    resume = config.resume
    if not re.fullmatch(r"[0-9a-f]{32}", resume.session_id):
        raise InvalidRequestError("resume.session_id is missing or none: give StreamStarted.session_id")
    if len(resume.open_segments) > MAX_OPEN_SEGMENTS:
        raise InvalidRequestError(
            f"resume.open_segments holds {len(resume.open_segments)}: give those without a final result"
        )
    start_offset_s = seconds_from(config.recognition.start_offset, "start_offset")
    open_texts = {
        segment.segment_id: OpenText(
            segment.revision,
            segment.stable_text,
            seconds_from(segment.stable_end_offset, "stable_end_offset") - start_offset_s,
        )
        for segment in resume.open_segments
    }
    return Resumption(resume.session_id, ResumePoint.of_token(resume.resume_token), open_texts)


def _seconds_within(
    config: config_pb2.StreamingConfig,
    name: Literal["close_after_silence", "heartbeat_interval"],
    least_s: float,
    most_s: float,
) -> float:
    """A Duration that may be absent (or 0): 0 then."""
    seconds = seconds_from(getattr(config, name), name)
    if seconds and not least_s <= seconds <= most_s:
        raise InvalidRequestError(f"{name} is {seconds:g} s: give {least_s:g} s to {most_s:g} s, or nothing")
    return seconds


def crops_from(message: media_pb2.MouthCrops) -> Crops:
    """Read mouth crops: uint8 (T, 96, 96) with T times.

    Raises:
        InvalidRequestError: the bytes do not fit the times, or times are negative or fall.
    """
    crop_bytes = MOUTH_CROP_SIZE_PX * MOUTH_CROP_SIZE_PX
    count = len(message.timestamps)
    if len(message.pixels) != count * crop_bytes:
        raise InvalidRequestError(
            f"mouth crops hold {len(message.pixels)} bytes for {count} timestamps; {count * crop_bytes} were expected: "
            f"send {MOUTH_CROP_SIZE_PX} x {MOUTH_CROP_SIZE_PX} grey pixels, one byte each, for every timestamp"
        )
    times_s = [seconds_from(timestamp, "mouth_crops.timestamps") for timestamp in message.timestamps]
    if any(later < earlier for earlier, later in itertools.pairwise([0.0, *times_s])):
        raise InvalidRequestError(
            "mouth_crops.timestamps fall or are negative: send crops in order of time, from 0"
        )
    pixels = np.frombuffer(message.pixels, np.uint8).reshape(count, MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX)
    return Crops(message.face, pixels, times_s)


def sound_from(message: media_pb2.Pcm) -> Sound:
    """Read PCM: int16 (S,), 16 kHz.

    Raises:
        InvalidRequestError: half a sample.
    """
    if len(message.samples) % 2:
        raise InvalidRequestError(
            f"pcm holds {len(message.samples)} bytes: send whole samples of 16 bits, mono, 16 kHz, little-endian"
        )
    return Sound(np.frombuffer(message.samples, "<i2").astype(np.int16, copy=False))


def seconds_from(duration: Duration, name: str) -> float:
    """Read a Duration as seconds.

    Raises:
        InvalidRequestError: it is not a valid Duration.
    """
    if abs(duration.nanos) > 999_999_999 or duration.seconds * duration.nanos < 0:
        raise InvalidRequestError(
            f"{name} is not a valid google.protobuf.Duration: {duration.seconds} s {duration.nanos} ns"
        )
    return duration.seconds + duration.nanos / 1e9


def _check_at_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise InvalidRequestError(f"{name} is {value}: this server allows at most {most}")


# --------------------------------------------------------------------------------------------------------- responses


def duration_of(seconds: float) -> Duration:
    """Write seconds as a Duration, to the microsecond."""
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


@dataclass(frozen=True)
class Position:
    """How far a stream has come.

    Attributes:
        bytes_received: bytes of media taken in.
        final_until_s: media up to which everything is final and sent.
        acknowledged_sequence: requests up to this number are needed no more.
        token: what the stream is resumed with.
    """

    bytes_received: int
    final_until_s: float
    acknowledged_sequence: int
    token: bytes


def streaming_response(
    event: Event, options: RecognitionOptions, position: Position
) -> lip_reading_pb2.StreamingRecognizeResponse:
    """Write one event of a stream."""
    shift_s = options.start_offset_s
    response = lip_reading_pb2.StreamingRecognizeResponse(
        final_until_offset=duration_of(position.final_until_s + shift_s)
    )
    match event:
        case MediaInfo():
            response.media_info.CopyFrom(media_info_message(event))
        case Segment():
            response.segment.CopyFrom(segment_message(event, shift_s))
        case Activity():
            response.activity.kind = _ACTIVITY_MESSAGES[event.kind]
            response.activity.offset.CopyFrom(duration_of(event.offset_s + shift_s))
            response.activity.speaker_id = event.speaker_id
        case Progress():
            response.progress.bytes_received = position.bytes_received
            response.progress.acknowledged_sequence = position.acknowledged_sequence
            response.progress.resume_token = position.token
            response.progress.media_received.CopyFrom(duration_of(event.received_s))
            response.progress.media_processed.CopyFrom(duration_of(event.processed_s))
            response.progress.faces = event.faces
        case StreamWarning():
            response.warning.CopyFrom(warning_message(event))
        case Finished():
            response.finished.media_duration.CopyFrom(duration_of(event.duration_s))
            response.finished.segments = event.segments
            response.finished.faces = event.faces
        case Drain():
            response.drain.deadline.CopyFrom(duration_of(event.deadline_s))
            response.drain.acknowledged_sequence = position.acknowledged_sequence
            response.drain.resume_token = position.token
        case Heartbeat():
            response.heartbeat.SetInParent()
    return response


def started_response(
    request_id: str, model: str, session_id: str, heartbeat_interval_s: float
) -> lip_reading_pb2.StreamingRecognizeResponse:
    """Write the first message of a stream."""
    started = lip_reading_pb2.StreamStarted(
        request_id=request_id,
        model=model,
        session_id=session_id,
        heartbeat_interval=duration_of(heartbeat_interval_s),
    )
    return lip_reading_pb2.StreamingRecognizeResponse(started=started)


def heartbeat_response() -> lip_reading_pb2.StreamingRecognizeResponse:
    """Write that there is nothing new, before there is any media."""
    return lip_reading_pb2.StreamingRecognizeResponse(heartbeat=lip_reading_pb2.Heartbeat())


def recognize_response(
    transcript: Transcript, options: RecognitionOptions, request_id: str
) -> lip_reading_pb2.RecognizeResponse:
    """Write the answer to a unary call."""
    return lip_reading_pb2.RecognizeResponse(
        request_id=request_id,
        model=options.model,
        media_info=None if transcript.media_info is None else media_info_message(transcript.media_info),
        segments=[segment_message(segment, options.start_offset_s) for segment in transcript.segments],
        warnings=[warning_message(warning) for warning in transcript.warnings],
        media_duration=duration_of(transcript.duration_s),
    )


def media_info_message(info: MediaInfo) -> media_pb2.MediaInfo:
    """Write what the container holds."""
    return media_pb2.MediaInfo(
        container=info.container,
        video_codec=info.video_codec,
        audio_codec=info.audio_codec,
        width_px=info.width_px,
        height_px=info.height_px,
        frame_rate_hz=info.frame_rate_hz,
        duration=None if info.duration_s is None else duration_of(info.duration_s),
        rotation_degrees=info.rotation_degrees,
    )


def segment_message(segment: Segment, shift_s: float) -> transcript_pb2.SpeechSegment:
    """Write a segment, its times moved by ``shift_s``."""
    return transcript_pb2.SpeechSegment(
        segment_id=segment.segment_id,
        revision=segment.revision,
        is_final=segment.is_final,
        stability=segment.stability,
        start_offset=duration_of(segment.start_s + shift_s),
        end_offset=duration_of(segment.end_s + shift_s),
        text=segment.best.text,
        confidence=segment.best.confidence,
        words=_word_messages(segment.best.words, shift_s),
        alternatives=[_alternative_message(reading, shift_s) for reading in segment.alternatives],
        speaker_id=segment.speaker_id,
        face_boxes=[_face_box_message(box, shift_s) for box in segment.face_boxes],
        modality=_MODALITY_MESSAGES[segment.modality],
        stable_words=segment.stable_words,
    )


def warning_message(warning: StreamWarning) -> lip_reading_pb2.Warning:
    """Write a warning."""
    return lip_reading_pb2.Warning(kind=_WARNING_MESSAGES[warning.kind], message=warning.message)


def _alternative_message(reading: Reading, shift_s: float) -> transcript_pb2.Alternative:
    return transcript_pb2.Alternative(
        text=reading.text, confidence=reading.confidence, words=_word_messages(reading.words, shift_s)
    )


def _word_messages(words: Iterable[Word], shift_s: float) -> list[transcript_pb2.Word]:
    return [
        transcript_pb2.Word(
            text=word.text,
            start_offset=duration_of(word.start_s + shift_s),
            end_offset=duration_of(word.end_s + shift_s),
            confidence=word.confidence,
        )
        for word in words
    ]


def _face_box_message(box: FaceBox, shift_s: float) -> transcript_pb2.FaceBox:
    return transcript_pb2.FaceBox(
        offset=duration_of(box.offset_s + shift_s),
        left=box.left,
        top=box.top,
        width=box.width,
        height=box.height,
    )
