"""Decodes requests: validates every client message and converts it to the server's own types."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from google.protobuf.duration_pb2 import Duration

from gorggle.v1 import config_pb2, media_pb2
from gorggle_server.errors import InvalidRequestError
from gorggle_server.grpc_server.frame_muxer import VideoFrame
from gorggle_server.inference.interface import ModelDescription
from gorggle_server.input_format import MOUTH_CROP_SIZE_PX, SAMPLE_RATE_HZ
from gorggle_server.recognition_options import (
    AudioInput,
    EndpointingConfig,
    Modality,
    ModelInput,
    RecognitionOptions,
)
from gorggle_server.streaming.crop_input import MouthCropChunk
from gorggle_server.streaming.interim_results import PartialTranscript
from gorggle_server.streaming.resume_token import ResumeToken

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gorggle_server.settings import ServerSettings

MAX_ALTERNATIVES = 10
# One year: larger offsets are mistakes, and would lose the milliseconds of timestamps.
MAX_START_OFFSET_S = 366 * 24 * 3600.0
LENGTH_PENALTY_RANGE = -2.0, 5.0
SILENCE_TIMEOUT_RANGE_S = 1.0, 3600.0
HEARTBEAT_INTERVAL_RANGE_S = 0.1, 60.0
MAX_OPEN_SEGMENTS = 64
PCM_SAMPLE_RATE_RANGE_HZ = 8000, 192_000
MAX_PCM_CHANNELS = 8
JPEG_SIGNATURE = b"\xff\xd8\xff"
MIN_IMAGE_SIDE_PX = 16

_MODALITIES = {
    config_pb2.MODALITY_UNSPECIFIED: Modality.AUDIO_VISUAL,
    config_pb2.MODALITY_AUDIO_VISUAL: Modality.AUDIO_VISUAL,
    config_pb2.MODALITY_VIDEO_ONLY: Modality.VIDEO_ONLY,
    config_pb2.MODALITY_AUDIO_ONLY: Modality.AUDIO_ONLY,
}
_PCM_TYPES: dict[int, str] = {
    media_pb2.Pcm.ENCODING_UNSPECIFIED: "<i2",
    media_pb2.Pcm.ENCODING_LINEAR16: "<i2",
    media_pb2.Pcm.ENCODING_FLOAT32: "<f4",
}


# ------------------------------------------------------------------------------------------------------ configuration


def decode_recognition_config(
    config: config_pb2.RecognitionConfig, default_model: str, limits: ServerSettings
) -> RecognitionOptions:
    """Decode the recognition settings of a call.

    Raises:
        InvalidRequestError: a value is out of range.
    """
    if config.modality not in _MODALITIES:
        raise InvalidRequestError(
            f"modality {config.modality} is unknown: use a value of gorggle.v1.Modality", field="modality"
        )
    _check_range("max_alternatives", config.max_alternatives, 0, MAX_ALTERNATIVES)
    _check_range("max_speakers", config.max_speakers, 0, limits.max_speakers)
    _check_range("beam_size", config.beam_size, 0, limits.max_beam_size)
    has_penalty = config.HasField("length_penalty")
    length_penalty = config.length_penalty if has_penalty else RecognitionOptions.length_penalty
    _check_range("length_penalty", length_penalty, *LENGTH_PENALTY_RANGE)
    start_offset_s = decode_duration(config.start_offset, "start_offset")
    _check_range("start_offset", start_offset_s, 0, MAX_START_OFFSET_S, " s")
    return RecognitionOptions(
        endpointing=_decode_endpointing(config.endpointing, limits),
        model=config.model or default_model,
        modality=_MODALITIES[config.modality],
        word_timestamps=config.enable_word_time_offsets,
        max_alternatives=config.max_alternatives,
        max_speakers=config.max_speakers or limits.max_speakers,
        beam_size=config.beam_size or min(RecognitionOptions.beam_size, limits.max_beam_size),
        length_penalty=length_penalty,
        start_offset_s=start_offset_s,
        face_boxes=config.enable_face_boxes,
    )


def check_model_support(
    config: config_pb2.RecognitionConfig, options: RecognitionOptions, description: ModelDescription
) -> None:
    """Check that the model of a call supports what the call requests.

    Raises:
        InvalidRequestError: it does not have the modality, the language, or the feature.
    """
    model, languages = options.model, description.languages
    if options.modality is Modality.VIDEO_ONLY and not description.model_input.uses_lips:
        raise InvalidRequestError(
            f"modality is video, but the model {model} recognizes speech from audio only: choose modality audio, or a "
            "model that reads lips",
            field="modality",
        )
    for code in config.language_codes:
        if code != "auto" and not any(_matches_language(code, language) for language in languages):
            known = f"has {', '.join(languages)}" if languages else "does not declare its languages"
            raise InvalidRequestError(
                f"language_codes holds {code[:32]!r}, but the model {model} {known}: name one of the model's "
                "languages, or auto",
                field="language_codes",
            )
    wants_punctuation = config.enable_automatic_punctuation and not description.has_punctuation
    unsupported = {
        "enable_automatic_punctuation": ("automatic punctuation", wants_punctuation),
        # None of the present models supports this.
        "adaptation": ("speech adaptation (phrase hints)", bool(config.adaptation.phrases)),
    }
    for field, (feature, is_requested) in unsupported.items():
        if is_requested:
            raise InvalidRequestError(
                f"the model {model} does not support {feature}: leave {field} out", field=field
            )


def check_audio_model(
    config: config_pb2.RecognitionConfig,
    options: RecognitionOptions,
    description: ModelDescription,
    *,
    can_combine: bool,
) -> None:
    """Check that the second model of a call, with this description, can recognize its audio.

    ``can_combine``: the first model reads lips, and the call has audio.

    Raises:
        InvalidRequestError: the call has no use for a second model, or it does not take a waveform.
    """
    if not can_combine:
        raise InvalidRequestError(
            f"audio_model is {config.audio_model!r}, but modality is {options.modality.value} and the model is "
            f"{options.model}: a second model needs audio and a first model that reads lips",
            field="audio_model",
        )
    if description.model_input != ModelInput(uses_lips=False, audio=AudioInput.WAVEFORM):
        raise InvalidRequestError(
            f"audio_model is {config.audio_model!r}, which reads lips: name a model that takes audio only",
            field="audio_model",
        )


def select_languages(requested: Sequence[str], languages: Sequence[str]) -> tuple[str, ...]:
    """Return a model's languages that a request names, in the model's tags; empty if it names none of them, or "auto"."""
    if "auto" in requested:
        return ()
    return tuple(
        language for language in languages if any(_matches_language(code, language) for code in requested)
    )


def _matches_language(requested: str, language: str) -> bool:
    """Return whether one BCP 47 tag is equal to, or a prefix of, the other: "en" matches "en-GB"."""
    first, second = (tag.lower().split("-") for tag in (requested, language))
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def _decode_endpointing(config: config_pb2.EndpointingConfig, limits: ServerSettings) -> EndpointingConfig:
    defaults = EndpointingConfig(max_utterance_s=limits.max_utterance_s)
    threshold = config.speech_threshold if config.HasField("speech_threshold") else defaults.threshold
    if not 0 < threshold < 1:
        raise InvalidRequestError(
            f"endpointing.speech_threshold is {threshold:g}: give a number between 0 and 1",
            field="endpointing.speech_threshold",
        )

    def decode(
        name: Literal["min_silence", "min_speech", "max_utterance"],
        default_s: float,
        min_s: float,
        max_s: float,
    ) -> float:
        if not config.HasField(name):
            return default_s
        seconds = decode_duration(getattr(config, name), f"endpointing.{name}")
        _check_range(f"endpointing.{name}", seconds, min_s, max_s, " s")
        return seconds

    return EndpointingConfig(
        endpoint_silence_s=decode("min_silence", defaults.endpoint_silence_s, 0.2, 5.0),
        min_speech_s=decode("min_speech", defaults.min_speech_s, 0.04, 2.0),
        max_utterance_s=decode("max_utterance", defaults.max_utterance_s, 2.0, limits.max_utterance_s),
        threshold=threshold,
    )


def decode_streaming_config(
    config: config_pb2.StreamingConfig, default_model: str, limits: ServerSettings
) -> RecognitionOptions:
    """Decode the settings of a stream; see ``decode_recognition_config``."""
    return dataclasses.replace(
        decode_recognition_config(config.recognition, default_model, limits),
        interim_results=config.interim_results,
        activity_events=config.enable_speech_activity_events,
        live=config.live,
        silence_timeout_s=_decode_optional_duration(config, "silence_timeout", *SILENCE_TIMEOUT_RANGE_S),
    )


def decode_heartbeat_interval_s(config: config_pb2.StreamingConfig) -> float:
    """Decode the heartbeat interval; 0 for none.

    Raises:
        InvalidRequestError: it is out of range.
    """
    return _decode_optional_duration(config, "heartbeat_interval", *HEARTBEAT_INTERVAL_RANGE_S)


@dataclass(frozen=True)
class ResumeRequest:
    """The session to resume, its state, and the stable text of utterances that have no final result yet."""

    session_id: str
    resume_token: ResumeToken
    partial_transcripts: dict[str, PartialTranscript]


def decode_resume_config(config: config_pb2.StreamingConfig) -> ResumeRequest | None:
    """Decode the session that a call resumes; None for a new session.

    Raises:
        InvalidRequestError: the session id or the token is malformed, or there are too many open segments.
    """
    if not config.HasField("resume"):
        return None
    resume = config.resume
    if not re.fullmatch(r"[0-9a-f]{32}", resume.session_id):
        raise InvalidRequestError(
            "resume.session_id is missing or malformed: give StreamStarted.session_id",
            field="resume.session_id",
        )
    if len(resume.open_segments) > MAX_OPEN_SEGMENTS:
        raise InvalidRequestError(
            f"resume.open_segments holds {len(resume.open_segments)} segments, more than {MAX_OPEN_SEGMENTS}: "
            "give only those without a final result",
            field="resume.open_segments",
        )
    start_offset_s = decode_duration(config.recognition.start_offset, "start_offset")
    partial_transcripts = {
        segment.segment_id: PartialTranscript(
            max(0, segment.revision),
            segment.stable_text,
            decode_duration(segment.stable_end_offset, "resume.open_segments.stable_end_offset")
            - start_offset_s,
        )
        for segment in resume.open_segments
    }
    return ResumeRequest(resume.session_id, ResumeToken.decode(resume.resume_token), partial_transcripts)


def _decode_optional_duration(
    config: config_pb2.StreamingConfig,
    name: Literal["silence_timeout", "heartbeat_interval"],
    min_s: float,
    max_s: float,
) -> float:
    """Return the seconds of a Duration; 0 if it is absent or 0."""
    seconds = decode_duration(getattr(config, name), name)
    if seconds:
        _check_range(name, seconds, min_s, max_s, " s")
    return seconds


# -------------------------------------------------------------------------------------------------------------- media


@dataclass(frozen=True)
class PcmAudio:
    """Samples at the client's rate: int16 (S,), mono."""

    samples: NDArray[np.int16]
    sample_rate_hz: int

    def check_sample_rate(self, previous_hz: int) -> None:
        """Raise InvalidRequestError if the rate differs from that of the stream so far; 0: none."""
        if previous_hz not in (0, self.sample_rate_hz):
            raise InvalidRequestError(
                f"pcm.sample_rate_hertz changed from {previous_hz} to {self.sample_rate_hz}: "
                "send one rate per stream",
                field="pcm.sample_rate_hertz",
            )


def decode_video_frame(message: media_pb2.VideoFrame, max_pixels: int) -> VideoFrame:
    """Decode one image without looking into it: a JPEG file stays encoded.

    Raises:
        InvalidRequestError: there is no image, it is not a JPEG file, or it does not have its declared size.
    """
    offset_s = decode_duration(message.offset, "frame.offset")
    if offset_s < 0:
        raise InvalidRequestError(
            f"frame.offset is {offset_s:g} s: count from the start of the media", field="frame.offset"
        )
    match message.WhichOneof("image"):
        case "jpeg":
            if not message.jpeg.startswith(JPEG_SIGNATURE):
                raise InvalidRequestError(
                    f"frame.jpeg begins with {message.jpeg[:4].hex(' ') or 'nothing'}: send a JPEG file",
                    field="frame.jpeg",
                )
            return VideoFrame(offset_s, True, 0, 0, message.jpeg)
        case "i420":
            image = message.i420
            _check_i420(image, max_pixels)
            return VideoFrame(offset_s, False, image.width_px, image.height_px, image.data)
        case _:
            raise InvalidRequestError("frame holds no image: set jpeg or i420", field="frame")


def _check_i420(image: media_pb2.I420Image, max_pixels: int) -> None:
    width, height = image.width_px, image.height_px
    for name, side in (("width_px", width), ("height_px", height)):
        if side < MIN_IMAGE_SIDE_PX or side % 2:
            raise InvalidRequestError(
                f"frame.i420.{name} is {side}: give an even number of at least {MIN_IMAGE_SIDE_PX}",
                field=f"frame.i420.{name}",
            )
    if width * height > max_pixels:
        raise InvalidRequestError(
            f"the frame has {width}x{height} pixels; the limit is {max_pixels}: scale it down",
            field="frame.i420",
        )
    if len(image.data) != width * height * 3 // 2:
        raise InvalidRequestError(
            f"frame.i420.data holds {len(image.data)} bytes; {width}x{height} pixels take {width * height * 3 // 2}",
            field="frame.i420.data",
        )


def decode_mouth_crops(message: media_pb2.MouthCrops) -> MouthCropChunk:
    """Decode mouth crops: uint8 (T, 96, 96) with T timestamps.

    Raises:
        InvalidRequestError: the number of bytes does not match the offsets, or the offsets are negative or decrease.
    """
    crop_bytes = MOUTH_CROP_SIZE_PX * MOUTH_CROP_SIZE_PX
    count = len(message.offsets)
    if len(message.pixels) != count * crop_bytes:
        raise InvalidRequestError(
            f"mouth_crops.pixels holds {len(message.pixels)} bytes for {count} offsets; {count * crop_bytes} were "
            f"expected: send {MOUTH_CROP_SIZE_PX} x {MOUTH_CROP_SIZE_PX} grey pixels, one byte each, for every offset",
            field="mouth_crops.pixels",
        )
    _check_range("mouth_crops.face_id", message.face_id, 0, 2**31 - 1)
    times_s = [decode_duration(offset, "mouth_crops.offsets") for offset in message.offsets]
    if any(later < earlier for earlier, later in itertools.pairwise([0.0, *times_s])):
        raise InvalidRequestError(
            "mouth_crops.offsets decrease or are negative: send crops in time order, from 0",
            field="mouth_crops.offsets",
        )
    pixels = np.frombuffer(message.pixels, np.uint8).reshape(count, MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX)
    return MouthCropChunk(message.face_id, pixels, times_s)


def decode_pcm(message: media_pb2.Pcm) -> PcmAudio:
    """Decode PCM and mix its channels down to one.

    Raises:
        InvalidRequestError: the format is not supported, or the samples are incomplete.
    """
    if message.encoding not in _PCM_TYPES:
        raise InvalidRequestError(
            f"pcm.encoding {message.encoding} is unknown: use a value of gorggle.v1.Pcm.Encoding",
            field="pcm.encoding",
        )
    sample_rate_hz = message.sample_rate_hertz or SAMPLE_RATE_HZ
    _check_range("pcm.sample_rate_hertz", sample_rate_hz, *PCM_SAMPLE_RATE_RANGE_HZ)
    channels = message.channel_count or 1
    _check_range("pcm.channel_count", channels, 1, MAX_PCM_CHANNELS)
    sample_type = np.dtype(_PCM_TYPES[message.encoding])
    if len(message.samples) % (sample_type.itemsize * channels):
        raise InvalidRequestError(
            f"pcm.samples holds {len(message.samples)} bytes: send whole samples of {sample_type.itemsize} bytes for "
            f"each of {channels} channels",
            field="pcm.samples",
        )
    samples = np.frombuffer(message.samples, sample_type).reshape(-1, channels)
    if sample_type.kind == "f":
        samples = np.clip(np.nan_to_num(samples), -1, 1) * np.float32(2**15 - 1)
    mono = samples[:, 0] if channels == 1 else samples.mean(axis=1)
    if mono.dtype.kind == "f":
        mono = np.rint(mono)
    return PcmAudio(mono.astype(np.int16), sample_rate_hz)


def decode_duration(duration: Duration, name: str) -> float:
    """Return the seconds of a Duration.

    Raises:
        InvalidRequestError: it is not a valid Duration.
    """
    if abs(duration.nanos) > 999_999_999 or duration.seconds * duration.nanos < 0:
        raise InvalidRequestError(
            f"{name} is not a valid google.protobuf.Duration: {duration.seconds} s {duration.nanos} ns",
            field=name,
        )
    return duration.seconds + duration.nanos / 1e9


def _check_range(field: str, value: float, minimum: float, maximum: float, unit: str = "") -> None:
    if not minimum <= value <= maximum:
        raise InvalidRequestError(
            f"{field} is {value:g}{unit}: give {minimum:g}{unit} to {maximum:g}{unit}", field=field
        )
