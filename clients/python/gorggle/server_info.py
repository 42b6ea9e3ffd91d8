"""Descriptions of servers and models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gorggle.results import Modality

CommercialUse = Literal["permitted", "forbidden", "unknown"]


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """Word error rate of a model on one dataset; ``source`` is the paper or command it comes from."""

    dataset: str
    modality: Modality
    condition: str
    word_error_rate_percent: float
    source: str


@dataclass(frozen=True, slots=True)
class ModelLicense:
    """Licence of a model's weights. If ``commercial_use`` is "unknown", check the licence before use."""

    name: str
    url: str
    commercial_use: CommercialUse
    summary: str


@dataclass(frozen=True, slots=True)
class Model:
    """Description of a model.

    Attributes:
        name: argument of ``transcribe(model=…)``.
        parameter_count: number of parameters.
        vocabulary_size: number of output tokens (subwords).
        language_codes: BCP 47 tags.
        vocabulary: human-readable description of what it can recognize.
        sha256: SHA-256 of the model file, hexadecimal.
        supports_automatic_punctuation: whether transcripts have punctuation and capitals, so that
            ``transcribe(automatic_punctuation=True)`` is accepted.
        supports_adaptation: whether ``transcribe(phrase_hints=…)`` is accepted.
        has_open_vocabulary: whether it recognizes any words of its languages; False if only those of ``vocabulary``.
    """

    name: str
    description: str
    architecture: str
    parameter_count: int
    encoder_layers: int
    encoder_width: int
    decoder_layers: int
    decoder_width: int
    vocabulary_size: int
    modalities: tuple[Modality, ...]
    video_frame_rate_hz: float
    audio_sample_rate_hz: int
    mouth_crop_size_px: int
    language_codes: tuple[str, ...]
    vocabulary: str
    trained_on: str
    error_rates: tuple[ErrorRate, ...]
    license: ModelLicense
    sha256: str
    supports_automatic_punctuation: bool = False
    supports_adaptation: bool = False
    has_open_vocabulary: bool = False


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of requests; see protos/gorggle/v1/server.proto."""

    max_message_bytes: int
    max_stream_duration_s: float
    max_clip_duration_s: float
    max_spooled_bytes: int
    max_frame_pixels: int
    max_speakers: int
    max_beam_size: int
    idle_timeout_s: float
    media_timeout_s: float
    max_utterance_s: float


@dataclass(frozen=True, slots=True)
class ServerCapacity:
    """Maximum and current number of recognition calls; calls beyond the maximum raise OverloadedError."""

    max_streams: int
    active_streams: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Version, limits and load of a server. Its models run on ``device``, "cpu" or "cuda"."""

    version: str
    default_model: str
    device: str
    uptime_s: float
    limits: ServerLimits
    capacity: ServerCapacity
