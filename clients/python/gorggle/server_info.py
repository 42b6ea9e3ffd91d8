"""What a server says about itself and its models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gorggle.results import Modality

CommercialUse = Literal["permitted", "forbidden", "unknown"]


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """How often a model errs on some data; ``source`` says who measured it."""

    dataset: str
    modality: Modality
    condition: str
    word_error_rate_percent: float
    source: str


@dataclass(frozen=True, slots=True)
class ModelLicense:
    """The terms of a model's weights. "unknown" commercial use means: find out before you use it."""

    name: str
    url: str
    commercial_use: CommercialUse
    summary: str


@dataclass(frozen=True, slots=True)
class Model:
    """What a model is, what it can read and what it may be used for.

    Attributes:
        name: what ``transcribe(model=…)`` takes.
        parameter_count: number of parameters.
        vocabulary_size: number of its output units (sub-words).
        language_codes: BCP 47 tags.
        vocabulary: what it can and cannot read, for people.
        sha256: of the model file, hexadecimal.
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


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The most that a request may ask."""

    max_message_bytes: int
    max_stream_duration_s: float
    max_clip_duration_s: float
    max_spooled_bytes: int
    max_frame_pixels: int
    max_speakers: int
    max_beam_size: int
    idle_timeout_s: float
    max_utterance_s: float


@dataclass(frozen=True, slots=True)
class ServerCapacity:
    """Recognition calls that a server serves at once, and now; one more than the most is an OverloadedError."""

    max_streams: int
    active_streams: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server is, what it allows and how busy it is; ``device`` is where its models run: "cpu" or "cuda"."""

    version: str
    default_model: str
    device: str
    uptime_s: float
    limits: ServerLimits
    capacity: ServerCapacity
