"""Settings of the server, read once at startup: command line, else ``GORGGLE_…`` environment variables."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gorggle_server.input_format import MOUTH_CROP_SIZE_PX
from gorggle_server.model_catalogue.store import get_default_model_dir
from gorggle_server.recognition_options import (
    DECODER_MEMORY_BYTES,
    DECODER_TIMEOUT_S,
    EndpointingConfig,
    MediaLimits,
    RecognitionOptions,
)
from gorggle_server.vision.landmark_model import LandmarkModel, LandmarkModelName

# A path or the location of a secret (see ``security.secret_sources``).
SecretLocation = Annotated[str, BeforeValidator(str)]

EMBEDDED_MODEL = Path(__file__).with_name("assets") / "gorggle-mini-1.safetensors"
# The name of the built-in speech model, whose weights come with the package moonshine-voice.
MOONSHINE_MODEL = "moonshine-tiny-en"
# Values of ``audio_model`` that are not names: the server's choice, and no second model.
AUTO_AUDIO_MODEL, NO_AUDIO_MODEL = "auto", "none"


def _get_default_otlp_endpoint() -> str:
    """Return the endpoint set by OpenTelemetry's standard variables."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return ""
    if endpoint := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return endpoint
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return f"{base.rstrip('/')}/v1/traces" if base else ""


class ServerSettings(BaseSettings):
    """All settings of the server."""

    model_config = SettingsConfigDict(
        env_prefix="GORGGLE_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    listen: str = Field("127.0.0.1:50051", description="gRPC address and port; port 0 selects a free one")
    tls_certificate: SecretLocation | None = Field(
        None, description="PEM with the server's certificate chain"
    )
    tls_key: SecretLocation | None = Field(None, description="PEM with the certificate's private key")
    tls_client_ca: SecretLocation | None = Field(
        None, description="PEM with a CA; clients must present a certificate signed by it"
    )
    token_file: SecretLocation | None = Field(
        None,
        description="names and hashes of bearer tokens; callers must send one of them (see `gorggle token`)",
    )
    secrets_refresh_interval_s: float = Field(
        300.0, gt=0, description="interval for refreshing secrets of AWS Secrets Manager, in seconds"
    )
    allow_insecure: bool = Field(
        False, description="allow a non-loopback address without TLS and authentication"
    )

    http_listen: str = Field(
        "", description="HTTP address of /metrics, /livez and /readyz; empty disables them"
    )

    otlp_endpoint: str = Field(
        default_factory=_get_default_otlp_endpoint,
        description="OTLP/HTTP endpoint for traces, such as http://127.0.0.1:4318/v1/traces; by default the one of the "
        "standard OTEL_EXPORTER_OTLP_… variables; empty disables tracing",
    )
    channelz_listen: str = Field(
        "", description="loopback address of gRPC's debugging service channelz; empty disables it"
    )

    models: dict[str, str] = Field(
        default_factory=dict,
        description="additional models: name to a path, s3://BUCKET/KEY or the name of an installed model, as a JSON "
        "object",
    )
    default_model: str = Field(
        "",
        description="model used if a request names none: one of `models`, or one installed with `gorggle model get`; empty "
        "selects the embedded model",
    )
    audio_model: str = Field(
        AUTO_AUDIO_MODEL,
        description="model for open speech that recognizes the audio as well, for models that read lips; words are then decided "
        "one by one; auto: moonshine-tiny-en, where it is installed, for models of English with a closed vocabulary; none: "
        "no second model unless a request names one",
    )
    model_dir: Path = Field(
        default_factory=get_default_model_dir,
        description="folder of the models that `gorggle model get` installs",
    )
    backend: Literal["auto", "onnxruntime", "torch"] = Field(
        "auto",
        description="library that runs AV-HuBERT models: onnxruntime, torch, or auto: onnxruntime for models of gorggle-mini's "
        "architecture on a CPU in float32, torch for others",
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="device for model inference: cpu or cuda")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="floating-point type of model inference: float32 or bfloat16"
    )
    quantization: Literal["none", "int8"] = Field(
        "none", description="weight quantization: int8 is faster on a CPU and slightly less accurate"
    )
    max_batch_delay_s: float = Field(
        0.01, ge=0, le=1, description="maximum time to wait for a batch to fill, in seconds"
    )
    max_batch_frames: int = Field(
        2000,
        ge=500,
        le=1_000_000,
        description="maximum size of a padded batch: its utterances times the frames of the longest",
    )
    num_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="CPU threads for model inference; 0 uses half of the CPUs and leaves the rest for decoding and face "
        "tracking",
    )
    landmark_model: Literal["dlib", "mediapipe"] = Field(
        "dlib",
        description="model of the face landmarks that mouths are cropped by: dlib, whose default file is not for commercial use, "
        "or mediapipe",
    )
    landmark_model_path: Path | None = Field(
        None,
        description="alternative 68-point dlib shape predictor; by default the one of the package face_recognition_models",
    )
    face_identity: bool = Field(
        True,
        description="recognize people by their faces within a video, so that they keep their speaker id after a cut or "
        "when they return; face embeddings are kept in memory for the duration of the video only",
    )

    s3_buckets: tuple[str, ...] = Field((), description="S3 buckets that Recognize may read; none by default")

    max_streams: int = Field(8, ge=1, le=10_000, description="maximum number of concurrent recognition calls")
    max_live_device_utilization: float = Field(
        0.7,
        ge=0,
        le=10,
        description="share of device time, as measured, that live streams may take before further ones are refused; 0 for "
        "no limit but max_streams",
    )
    max_live_cpu_utilization: float = Field(
        0.7,
        ge=0,
        le=10,
        description="share of CPU time, as measured, that live streams may take (decoding, face tracking and voice activity "
        "together) before further ones are refused; 0 for no limit but max_streams",
    )
    max_streams_per_client: int = Field(
        0,
        ge=0,
        description="maximum number of concurrent calls of one client; 0 for no limit but max_streams",
    )
    max_message_bytes: int = Field(
        32 * 2**20, ge=2**16, le=2**30, description="maximum size of a request message, in bytes"
    )
    max_stream_duration_s: float = Field(
        MediaLimits.max_duration_s, gt=0, description="maximum duration of streamed media, in seconds"
    )
    max_clip_duration_s: float = Field(
        300.0, gt=0, description="maximum duration of a clip in Recognize, in seconds"
    )
    max_spooled_bytes: int = Field(
        MediaLimits.max_spooled_bytes,
        ge=2**20,
        description="maximum size of a container that must be read completely, in bytes",
    )
    max_frame_pixels: int = Field(
        MediaLimits.max_frame_pixels,
        ge=MOUTH_CROP_SIZE_PX**2,
        description="maximum size of a video frame, in pixels",
    )
    max_speakers: int = Field(
        RecognitionOptions.max_speakers, ge=1, le=32, description="maximum number of faces tracked per stream"
    )
    max_beam_size: int = Field(50, ge=1, le=200, description="maximum beam size that a request may ask for")
    idle_timeout_s: float = Field(
        30.0,
        gt=0,
        description="maximum time without a message from the client, or with unread responses, in seconds",
    )
    media_timeout_s: float = Field(
        600.0, gt=0, description="maximum time a client may send only heartbeats, in seconds"
    )
    max_utterance_s: float = Field(
        EndpointingConfig.max_utterance_s,
        ge=2,
        le=EndpointingConfig.max_utterance_s,
        description="maximum duration of an utterance, in seconds; AV-HuBERT was trained on 20 s",
    )

    sandbox_decoding: bool = Field(
        True,
        description="decode media and track faces in sandboxed subprocesses instead of the server process",
    )
    decoder_memory_bytes: int = Field(
        DECODER_MEMORY_BYTES,
        ge=5 * 2**27,
        description="address space of one decoder subprocess, program included, in bytes",
    )
    decoder_timeout_s: float = Field(
        DECODER_TIMEOUT_S,
        gt=0,
        description="time after which an unresponsive decoder subprocess is killed, in seconds",
    )

    shutdown_grace_period_s: float = Field(
        10.0, ge=0, description="time that calls in flight may take to finish after SIGTERM, in seconds"
    )

    @field_validator("listen", "http_listen", "channelz_listen")
    @classmethod
    def _validate_address(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name != "listen":
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise ValueError(f"{value!r} is not HOST:PORT, such as 127.0.0.1:50051 or [::]:50051")
        return value

    @model_validator(mode="after")
    def _require_security_beyond_loopback(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: set both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca requires tls_certificate and tls_key")
        has_authentication = self.tls_client_ca is not None or self.token_file is not None
        is_secure = self.tls_certificate is not None and has_authentication
        if not _is_loopback(self.listen) and not is_secure and not self.allow_insecure:
            raise ValueError(
                f"{self.listen} is reachable from other machines: set tls_certificate, tls_key and tls_client_ca or "
                "token_file, or allow_insecure if the network is otherwise protected"
            )
        return self

    @model_validator(mode="after")
    def _require_channelz_on_loopback(self) -> Self:
        if self.channelz_listen and not _is_loopback(self.channelz_listen):
            raise ValueError(
                f"channelz_listen is {self.channelz_listen}: it reveals who is connected, so it must be on loopback, such "
                "as 127.0.0.1:50052"
            )
        return self

    @model_validator(mode="after")
    def _require_dlib_for_its_file(self) -> Self:
        if self.landmark_model_path is not None and self.landmark_model != "dlib":
            raise ValueError(
                f"landmark_model_path is {self.landmark_model_path}, a file for dlib, but landmark_model is "
                f"{self.landmark_model}: set only one of them"
            )
        return self

    def count_model_threads(self) -> int:
        """Return the number of CPU threads for model inference."""
        return self.num_threads or max(1, count_cpus() // 2)

    def get_landmark_model(self) -> LandmarkModel:
        """Return the landmark model of the face tracking."""
        return LandmarkModel(LandmarkModelName(self.landmark_model), self.landmark_model_path)


def count_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
