"""What callers send: every message is read here, and checked, and becomes one of the server's own types."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from google.protobuf.duration_pb2 import Duration

from gorggle.v1 import config_pb2, media_pb2
from gorggle_server.errors import InvalidRequestError
from gorggle_server.streaming.crop_input import AudioChunk, MouthCropChunk
from gorggle_server.streaming.interim_results import PartialTranscript
from gorggle_server.streaming.resume_token import ResumeToken
from gorggle_server.timebase import MOUTH_CROP_SIZE_PX
from gorggle_server.types import EndpointingConfig, Modality, RecognitionOptions

if TYPE_CHECKING:
    from gorggle_server.settings import ServerSettings

MAX_ALTERNATIVES = 10
# A year: beyond it a start offset is a mistake, and times would lose their milliseconds.
MAX_START_OFFSET_S = 366 * 24 * 3600.0
DEFAULT_BEAM_SIZE = 5
# The least and the most that may be asked for, in seconds.
SILENCE_TIMEOUT_RANGE_S = 1.0, 3600.0
HEARTBEAT_INTERVAL_RANGE_S = 0.1, 60.0
MAX_OPEN_SEGMENTS = 64

_MODALITIES = {
    config_pb2.MODALITY_UNSPECIFIED: Modality.AUDIO_VISUAL,
    config_pb2.MODALITY_AUDIO_VISUAL: Modality.AUDIO_VISUAL,
    config_pb2.MODALITY_VIDEO_ONLY: Modality.VIDEO_ONLY,
    config_pb2.MODALITY_AUDIO_ONLY: Modality.AUDIO_ONLY,
}


def decode_recognition_config(
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
    _check_maximum("max_alternatives", config.max_alternatives, MAX_ALTERNATIVES)
    _check_maximum("max_speakers", config.max_speakers, limits.max_speakers)
    _check_maximum("beam_size", config.beam_size, limits.max_beam_size)
    length_penalty = config.length_penalty if config.HasField("length_penalty") else 1.0
    if not -2 <= length_penalty <= 5:
        raise InvalidRequestError(f"length_penalty is {length_penalty:g}: give a number from -2 to 5")
    start_offset_s = decode_duration(config.start_offset, "start_offset")
    if not 0 <= start_offset_s <= MAX_START_OFFSET_S:
        raise InvalidRequestError(f"start_offset is {start_offset_s:g} s: give 0 to {MAX_START_OFFSET_S:g} s")
    return RecognitionOptions(
        endpointing=_decode_endpointing(config.endpointing, limits),
        model=config.model or default_model,
        modality=_MODALITIES[config.modality],
        word_timestamps=config.enable_word_times,
        max_alternatives=config.max_alternatives,
        max_speakers=config.max_speakers or limits.max_speakers,
        beam_size=config.beam_size or min(DEFAULT_BEAM_SIZE, limits.max_beam_size),
        length_penalty=length_penalty,
        start_offset_s=start_offset_s,
        face_boxes=config.enable_face_boxes,
    )


def _decode_endpointing(config: config_pb2.EndpointingConfig, limits: ServerSettings) -> EndpointingConfig:
    defaults = EndpointingConfig(max_utterance_s=limits.max_utterance_s)
    threshold = config.threshold if config.HasField("threshold") else defaults.threshold
    if not 0 < threshold < 1:
        raise InvalidRequestError(f"endpointing.threshold is {threshold:g}: give a number between 0 and 1")
    ranges = {
        "pause": (defaults.endpoint_silence_s, 0.2, 5.0),
        "min_speech": (defaults.min_speech_s, 0.04, 2.0),
        "max_utterance": (defaults.max_utterance_s, 2.0, limits.max_utterance_s),
    }
    seconds = {}
    for name, (default_s, least_s, most_s) in ranges.items():
        seconds[f"{name}_s"] = default_s
        if config.HasField(name):  # type: ignore[arg-type]  # names from the table above
            given_s = decode_duration(getattr(config, name), f"endpointing.{name}")
            if not least_s <= given_s <= most_s:
                raise InvalidRequestError(
                    f"endpointing.{name} is {given_s:g} s: give {least_s:g} s to {most_s:g} s"
                )
            seconds[f"{name}_s"] = given_s
    return EndpointingConfig(threshold=threshold, **seconds)


def decode_streaming_config(
    config: config_pb2.StreamingConfig, default_model: str, limits: ServerSettings
) -> RecognitionOptions:
    """Read and check how a stream is to be read; see ``decode_recognition_config``."""
    return dataclasses.replace(
        decode_recognition_config(config.recognition, default_model, limits),
        interim_results=config.interim_results,
        activity_events=config.activity_events,
        live=config.live,
        silence_timeout_s=_decode_optional_duration(config, "close_after_silence", *SILENCE_TIMEOUT_RANGE_S),
    )


def decode_heartbeat_interval_s(config: config_pb2.StreamingConfig) -> float:
    """Read how often the client wants to hear from the server at least; 0: it does not care.

    Raises:
        InvalidRequestError: more often, or more rarely, than is allowed.
    """
    return _decode_optional_duration(config, "heartbeat_interval", *HEARTBEAT_INTERVAL_RANGE_S)


@dataclass(frozen=True)
class ResumeRequest:
    """The session that a call carries on, where it is taken up, and what was sent of open utterances."""

    session_id: str
    resume_token: ResumeToken
    partial_transcripts: dict[str, PartialTranscript]


def decode_resume_config(config: config_pb2.StreamingConfig) -> ResumeRequest | None:
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
    start_offset_s = decode_duration(config.recognition.start_offset, "start_offset")
    open_texts = {
        segment.segment_id: PartialTranscript(
            segment.revision,
            segment.stable_text,
            decode_duration(segment.stable_end_offset, "stable_end_offset") - start_offset_s,
        )
        for segment in resume.open_segments
    }
    return ResumeRequest(resume.session_id, ResumeToken.decode(resume.resume_token), open_texts)


def _decode_optional_duration(
    config: config_pb2.StreamingConfig,
    name: Literal["close_after_silence", "heartbeat_interval"],
    min_s: float,
    max_s: float,
) -> float:
    """A Duration that may be absent (or 0): 0 then."""
    seconds = decode_duration(getattr(config, name), name)
    if seconds and not min_s <= seconds <= max_s:
        raise InvalidRequestError(f"{name} is {seconds:g} s: give {min_s:g} s to {max_s:g} s, or nothing")
    return seconds


def decode_mouth_crops(message: media_pb2.MouthCrops) -> MouthCropChunk:
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
    times_s = [decode_duration(timestamp, "mouth_crops.timestamps") for timestamp in message.timestamps]
    if any(later < earlier for earlier, later in itertools.pairwise([0.0, *times_s])):
        raise InvalidRequestError(
            "mouth_crops.timestamps fall or are negative: send crops in order of time, from 0"
        )
    pixels = np.frombuffer(message.pixels, np.uint8).reshape(count, MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX)
    return MouthCropChunk(message.face, pixels, times_s)


def decode_pcm(message: media_pb2.Pcm) -> AudioChunk:
    """Read PCM: int16 (S,), 16 kHz.

    Raises:
        InvalidRequestError: half a sample.
    """
    if len(message.samples) % 2:
        raise InvalidRequestError(
            f"pcm holds {len(message.samples)} bytes: send whole samples of 16 bits, mono, 16 kHz, little-endian"
        )
    return AudioChunk(np.frombuffer(message.samples, "<i2").astype(np.int16, copy=False))


def decode_duration(duration: Duration, name: str) -> float:
    """Read a Duration as seconds.

    Raises:
        InvalidRequestError: it is not a valid Duration.
    """
    if abs(duration.nanos) > 999_999_999 or duration.seconds * duration.nanos < 0:
        raise InvalidRequestError(
            f"{name} is not a valid google.protobuf.Duration: {duration.seconds} s {duration.nanos} ns"
        )
    return duration.seconds + duration.nanos / 1e9


def _check_maximum(name: str, value: int, maximum: int) -> None:
    if value > maximum:
        raise InvalidRequestError(f"{name} is {value}: this server allows at most {maximum}")
