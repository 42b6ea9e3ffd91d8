"""From options and media to the API's requests: the only place that writes protobuf."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from gorggle.errors import InvalidRequestError, InvalidSourceError
from gorggle.results import Modality
from gorggle.v1 import config_pb2, lip_reading_pb2, media_pb2

StreamRequest = lip_reading_pb2.StreamingRecognizeRequest

MAX_ALTERNATIVES = 10
_UINT32_MAX = 2**32 - 1
_MODALITIES: dict[str, config_pb2.Modality.ValueType] = {
    "av": config_pb2.MODALITY_AUDIO_VISUAL,
    "video": config_pb2.MODALITY_VIDEO_ONLY,
    "audio": config_pb2.MODALITY_AUDIO_ONLY,
}


@dataclass(frozen=True, kw_only=True)
class RecognitionOptions:
    """How to read; ``Client.transcribe`` explains each.

    Raises:
        InvalidRequestError: a value that no server would accept.
    """

    modality: Modality = "av"
    model: str | None = None
    word_timestamps: bool = True
    max_alternatives: int = 0
    max_speakers: int = 0
    beam_size: int = 0
    length_penalty: float | None = None
    start_offset_s: float = 0.0
    face_boxes: bool = False
    endpoint_silence_s: float | None = None

    def __post_init__(self) -> None:
        if self.modality not in _MODALITIES:
            raise InvalidRequestError(f"modality is {self.modality!r}: use one of {', '.join(_MODALITIES)}")
        _check_count("alternatives", self.max_alternatives, MAX_ALTERNATIVES)
        _check_count("max_speakers", self.max_speakers, _UINT32_MAX)
        _check_count("beam_size", self.beam_size, _UINT32_MAX)
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise InvalidRequestError(f"length_penalty is {self.length_penalty}: give a finite number")
        if self.endpoint_silence_s is not None and not (
            math.isfinite(self.endpoint_silence_s) and self.endpoint_silence_s > 0
        ):
            raise InvalidRequestError(f"pause_s is {self.endpoint_silence_s}: give seconds above 0")
        if not (math.isfinite(self.start_offset_s) and self.start_offset_s >= 0):
            raise InvalidRequestError(f"start_offset_s is {self.start_offset_s}: give seconds, 0 or more")


def encode_recognition_config(options: RecognitionOptions) -> config_pb2.RecognitionConfig:
    """Write how to read."""
    pause = None if options.endpoint_silence_s is None else encode_duration(options.endpoint_silence_s)
    return config_pb2.RecognitionConfig(
        endpointing=None if pause is None else config_pb2.EndpointingConfig(pause=pause),
        model=options.model or "",
        modality=_MODALITIES[options.modality],
        enable_word_times=options.word_timestamps,
        max_alternatives=options.max_alternatives,
        max_speakers=options.max_speakers,
        beam_size=options.beam_size,
        length_penalty=options.length_penalty,
        start_offset=encode_duration(options.start_offset_s),
        enable_face_boxes=options.face_boxes,
    )


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a stream behaves; ``Client.transcribe`` explains each.

    Raises:
        InvalidRequestError: a value that no server would accept.
    """

    interim_results: bool = False
    activity_events: bool = False
    live: bool = False
    silence_timeout_s: float | None = None
    heartbeat_interval_s: float = 10.0

    def __post_init__(self) -> None:
        silence_s = self.silence_timeout_s
        if silence_s is not None and not (math.isfinite(silence_s) and silence_s > 0):
            raise InvalidRequestError(f"silence_timeout_s is {silence_s}: give seconds above 0")


def encode_first_request(options: RecognitionOptions, stream: StreamOptions) -> StreamRequest:
    """Write the first request of a stream."""
    silence_s = stream.silence_timeout_s
    config = config_pb2.StreamingConfig(
        recognition=encode_recognition_config(options),
        interim_results=stream.interim_results,
        activity_events=stream.activity_events,
        live=stream.live,
        close_after_silence=None if silence_s is None else encode_duration(silence_s),
        heartbeat_interval=encode_duration(stream.heartbeat_interval_s),
    )
    return StreamRequest(config=config)


def encode_resume_request(
    first_request: StreamRequest,
    session_id: str,
    token: bytes,
    open_segments: Iterable[config_pb2.OpenSegment],
) -> StreamRequest:
    """Write the first request of a call that carries a session on."""
    request = StreamRequest()
    request.CopyFrom(first_request)
    request.config.resume.CopyFrom(
        config_pb2.ResumeConfig(session_id=session_id, resume_token=token, open_segments=open_segments)
    )
    return request


def encode_heartbeat() -> StreamRequest:
    """Write that there is nothing to send for the moment."""
    return StreamRequest(heartbeat=lip_reading_pb2.Heartbeat())


def encode_media(chunk: bytes) -> StreamRequest:
    """Write the next bytes of a media file."""
    return StreamRequest(media=chunk)


def encode_mouth_crops(pixels: bytes, times_s: Iterable[float], face: int = 0) -> StreamRequest:
    """Write the next mouth crops."""
    timestamps = [encode_duration(time_s) for time_s in times_s]
    return StreamRequest(mouth_crops=media_pb2.MouthCrops(pixels=pixels, timestamps=timestamps, face=face))


def encode_pcm(samples: bytes) -> StreamRequest:
    """Write the next sound: int16, little-endian, mono, 16 kHz."""
    return StreamRequest(pcm=media_pb2.Pcm(samples=samples))


def encode_clip_request(
    options: RecognitionOptions, messages: Iterable[StreamRequest]
) -> lip_reading_pb2.RecognizeRequest:
    """Write a whole clip, given as a stream's media messages, as one request.

    Raises:
        InvalidSourceError: there is nothing in it.
    """
    content, crops, samples = bytearray(), [], bytearray()
    for message in messages:
        content += message.media
        samples += message.pcm.samples
        if message.HasField("mouth_crops"):
            crops.append(message.mouth_crops)
    config = encode_recognition_config(options)
    if crops or samples:
        pcm = media_pb2.Pcm(samples=bytes(samples)) if samples else None
        clip = lip_reading_pb2.ElementaryClip(mouth_crops=crops, pcm=pcm)
        return lip_reading_pb2.RecognizeRequest(config=config, elementary=clip)
    if not content:
        raise InvalidSourceError("the source holds no bytes: give a media file")
    return lip_reading_pb2.RecognizeRequest(config=config, content=bytes(content))


def encode_uri_request(options: RecognitionOptions, uri: str) -> lip_reading_pb2.RecognizeRequest:
    """Write a request for a clip that lies in S3."""
    return lip_reading_pb2.RecognizeRequest(config=encode_recognition_config(options), uri=uri)


def encode_duration(time_s: float) -> Duration:
    """Seconds as a Duration, to the microsecond."""
    duration = Duration()
    duration.FromMicroseconds(round(time_s * 1e6))
    return duration


def _check_count(name: str, value: int, maximum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise InvalidRequestError(f"{name} is {value!r}: give a whole number from 0 to {maximum}")
