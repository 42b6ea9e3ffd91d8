"""Encodes options and media as requests. Only this module writes protobuf messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from gorggle.errors import InvalidRequestError, InvalidSourceError
from gorggle.results import Modality
from gorggle.v1 import config_pb2, lip_reading_pb2, media_pb2

StreamRequest = lip_reading_pb2.StreamingRecognizeRequest

MAX_ALTERNATIVES = 10
_INT32_MAX = 2**31 - 1
_MODALITIES: dict[str, config_pb2.Modality.ValueType] = {
    "av": config_pb2.MODALITY_AUDIO_VISUAL,
    "video": config_pb2.MODALITY_VIDEO_ONLY,
    "audio": config_pb2.MODALITY_AUDIO_ONLY,
}


@dataclass(frozen=True, kw_only=True)
class RecognitionOptions:
    """Recognition options; see ``Client.transcribe``, which has their defaults.

    Raises:
        InvalidRequestError: a value that no server accepts.
    """

    modality: Modality
    model: str | None
    audio_model: str | None
    word_timestamps: bool
    max_alternatives: int
    max_speakers: int
    beam_size: int
    length_penalty: float | None
    start_offset_s: float
    face_boxes: bool
    endpoint_silence_s: float | None
    language_codes: Sequence[str]
    phrase_hints: Sequence[str]
    automatic_punctuation: bool

    def __post_init__(self) -> None:
        if self.modality not in _MODALITIES:
            raise InvalidRequestError(f"modality is {self.modality!r}: use one of {', '.join(_MODALITIES)}")
        _check_count("alternatives", self.max_alternatives, MAX_ALTERNATIVES)
        _check_count("max_speakers", self.max_speakers, _INT32_MAX)
        _check_count("beam_size", self.beam_size, _INT32_MAX)
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise InvalidRequestError(f"length_penalty is {self.length_penalty}: give a finite number")
        _check_duration("endpoint_silence_s", self.endpoint_silence_s)
        for name, values in (("language_codes", self.language_codes), ("phrase_hints", self.phrase_hints)):
            if isinstance(values, str):
                raise InvalidRequestError(f"{name} is {values!r}: give a list of strings")
        if not (math.isfinite(self.start_offset_s) and self.start_offset_s >= 0):
            raise InvalidRequestError(f"start_offset_s is {self.start_offset_s}: give seconds, 0 or more")


def encode_recognition_config(options: RecognitionOptions) -> config_pb2.RecognitionConfig:
    """Encode recognition options."""
    silence = None if options.endpoint_silence_s is None else encode_duration(options.endpoint_silence_s)
    phrases = [config_pb2.SpeechAdaptation.Phrase(value=phrase) for phrase in options.phrase_hints]
    return config_pb2.RecognitionConfig(
        endpointing=None if silence is None else config_pb2.EndpointingConfig(min_silence=silence),
        model=options.model or "",
        audio_model=options.audio_model or "",
        modality=_MODALITIES[options.modality],
        enable_word_time_offsets=options.word_timestamps,
        max_alternatives=options.max_alternatives,
        max_speakers=options.max_speakers,
        beam_size=options.beam_size,
        length_penalty=options.length_penalty,
        start_offset=encode_duration(options.start_offset_s),
        enable_face_boxes=options.face_boxes,
        language_codes=options.language_codes,
        adaptation=config_pb2.SpeechAdaptation(phrases=phrases) if phrases else None,
        enable_automatic_punctuation=options.automatic_punctuation,
    )


@dataclass(frozen=True, kw_only=True)
class StreamOptions(RecognitionOptions):
    """Options of a stream; see ``Client.transcribe``.

    Raises:
        InvalidRequestError: a value that no server accepts.
    """

    interim_results: bool
    activity_events: bool
    live: bool
    silence_timeout_s: float | None
    heartbeat_interval_s: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_duration("silence_timeout_s", self.silence_timeout_s)


def encode_first_request(options: StreamOptions) -> StreamRequest:
    """Encode the first request of a stream."""
    silence_s = options.silence_timeout_s
    config = config_pb2.StreamingConfig(
        recognition=encode_recognition_config(options),
        interim_results=options.interim_results,
        enable_speech_activity_events=options.activity_events,
        live=options.live,
        silence_timeout=None if silence_s is None else encode_duration(silence_s),
        heartbeat_interval=encode_duration(options.heartbeat_interval_s),
    )
    return StreamRequest(config=config)


def encode_resume_request(
    first_request: StreamRequest,
    session_id: str,
    token: bytes,
    open_segments: Iterable[config_pb2.OpenSegment],
) -> StreamRequest:
    """Encode the first request of a call that resumes a session."""
    request = StreamRequest()
    request.CopyFrom(first_request)
    request.config.resume.CopyFrom(
        config_pb2.ResumeConfig(session_id=session_id, resume_token=token, open_segments=open_segments)
    )
    return request


def encode_heartbeat() -> StreamRequest:
    """Encode a heartbeat."""
    return StreamRequest(heartbeat=lip_reading_pb2.Heartbeat())


def encode_media(chunk: bytes) -> StreamRequest:
    """Encode the next bytes of a media file."""
    return StreamRequest(media=chunk)


def encode_mouth_crops(pixels: bytes, times_s: Iterable[float], face: int = 0) -> StreamRequest:
    """Encode the next mouth crops."""
    offsets = [encode_duration(time_s) for time_s in times_s]
    return StreamRequest(mouth_crops=media_pb2.MouthCrops(pixels=pixels, offsets=offsets, face_id=face))


def encode_pcm(samples: bytes, sample_rate_hz: int) -> StreamRequest:
    """Encode the next audio samples: int16, little-endian, mono."""
    return StreamRequest(pcm=media_pb2.Pcm(samples=samples, sample_rate_hertz=sample_rate_hz))


def encode_frame(time_s: float, image: bytes | media_pb2.I420Image) -> StreamRequest:
    """Encode a video frame: a JPEG file, or uncompressed."""
    content: dict[str, Any] = {"jpeg" if isinstance(image, bytes) else "i420": image}
    return StreamRequest(frame=media_pb2.VideoFrame(offset=encode_duration(time_s), **content))


def encode_clip_request(
    options: RecognitionOptions, messages: Iterable[StreamRequest]
) -> lip_reading_pb2.RecognizeRequest:
    """Encode a whole clip, given as the media messages of a stream, as one request.

    Raises:
        InvalidSourceError: the clip is empty, or consists of single frames.
    """
    content, crops, samples, sample_rate_hz = bytearray(), [], bytearray(), 0
    for message in messages:
        content += message.media
        if message.HasField("frame"):
            raise InvalidSourceError(
                "single frames can only be streamed: use transcribe(), or give an array of frames"
            )
        samples += message.pcm.samples
        sample_rate_hz = message.pcm.sample_rate_hertz or sample_rate_hz
        if message.HasField("mouth_crops"):
            crops.append(message.mouth_crops)
    config = encode_recognition_config(options)
    if crops or samples:
        pcm = media_pb2.Pcm(samples=bytes(samples), sample_rate_hertz=sample_rate_hz) if samples else None
        clip = lip_reading_pb2.PreprocessedClip(mouth_crops=crops, pcm=pcm)
        return lip_reading_pb2.RecognizeRequest(config=config, preprocessed=clip)
    if not content:
        raise InvalidSourceError("the source holds no bytes: give a media file")
    return lip_reading_pb2.RecognizeRequest(config=config, content=bytes(content))


def encode_uri_request(options: RecognitionOptions, uri: str) -> lip_reading_pb2.RecognizeRequest:
    """Encode a request for a clip in S3."""
    return lip_reading_pb2.RecognizeRequest(config=encode_recognition_config(options), uri=uri)


def encode_duration(time_s: float) -> Duration:
    """Return seconds as a Duration, rounded to microseconds."""
    duration = Duration()
    duration.FromMicroseconds(round(time_s * 1e6))
    return duration


def _check_duration(name: str, value_s: float | None) -> None:
    if value_s is not None and not (math.isfinite(value_s) and value_s > 0):
        raise InvalidRequestError(f"{name} is {value_s}: give seconds above 0")


def _check_count(name: str, value: int, maximum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise InvalidRequestError(f"{name} is {value!r}: give a whole number from 0 to {maximum}")
