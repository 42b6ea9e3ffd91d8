"""The server's settings, read once when it starts: from the command line, else from ``GORGGLE_…`` variables."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# A path, or a secret's address (see ``material``).
SecretLocation = Annotated[str, BeforeValidator(str)]

EMBEDDED_MODEL = Path(__file__).with_name("assets") / "gorggle-mini-1.safetensors"


def _get_default_otlp_endpoint() -> str:
    """Where OpenTelemetry's own variables send traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return ""
    if endpoint := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return endpoint
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return f"{base.rstrip('/')}/v1/traces" if base else ""


class ServerSettings(BaseSettings):
    """Every setting of the server. Durations are seconds, sizes bytes, unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="GORGGLE_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    listen: str = Field("127.0.0.1:50051", description="address and port; port 0 takes a free one")
    tls_certificate: SecretLocation | None = Field(
        None, description="PEM with the server's certificate chain"
    )
    tls_key: SecretLocation | None = Field(None, description="PEM with the certificate's private key")
    tls_client_ca: SecretLocation | None = Field(
        None, description="PEM; clients must show a certificate signed by it"
    )
    token_file: SecretLocation | None = Field(
        None,
        description="bearer tokens' names and hashes; callers must show one (see `gorggle token`)",
    )
    secrets_refresh_interval_s: float = Field(
        300.0, gt=0, description="how often secrets of AWS Secrets Manager are fetched again"
    )
    allow_insecure: bool = Field(
        False, description="listen beyond loopback without TLS and a way to know the callers"
    )

    http_listen: str = Field(
        "", description="address of /metrics, /livez and /readyz over plain HTTP; default: none"
    )

    otlp_endpoint: str = Field(
        default_factory=_get_default_otlp_endpoint,
        description="traces go there by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; default: where the "
        "standard OTEL_EXPORTER_OTLP_… variables say, else nowhere",
    )
    channelz_listen: str = Field(
        "", description="loopback address of gRPC's own debugging service, channelz; default: none"
    )

    models: dict[str, str] = Field(
        default_factory=dict,
        description="further models: name to a path or s3://bucket/key, as JSON in GORGGLE_MODELS",
    )
    default_model: str = Field(
        "", description="the model used where a request names none; default: the embedded one"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="where the models run")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="what the models calculate in")
    int8_weights: bool = Field(
        False, description="keep weights as 8-bit integers: faster on a CPU, with a little less accuracy"
    )
    max_batch_delay_s: float = Field(
        0.01, ge=0, le=1, description="an utterance waits so long for others to be read with"
    )
    max_batch_frames: int = Field(
        2000, ge=500, le=1_000_000, description="of one batch: its utterances times the longest of them"
    )
    num_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="threads of the models on the CPU; 0: half the processors, the others see",
    )
    landmark_model_path: Path | None = Field(None, description="another 68-point dlib predictor")

    s3_buckets: tuple[str, ...] = Field((), description="buckets that Recognize may read; default: none")

    max_streams: int = Field(8, ge=1, le=10_000, description="recognition calls served at once")
    max_live_device_utilization: float = Field(
        0.7,
        ge=0,
        le=10,
        description="share of the device's time that live streams may take, as measured; beyond it a further one is "
        "refused; 0: no limit but max_streams",
    )
    max_live_cpu_utilization: float = Field(
        0.7,
        ge=0,
        le=10,
        description="share of the processors' time that live streams may take, as measured, decoding, seeing and hearing "
        "together; beyond it a further one is refused; 0: no limit but max_streams",
    )
    max_streams_per_client: int = Field(0, ge=0, description="of one caller; 0: no limit but max_streams")
    max_message_bytes: int = Field(32 * 2**20, ge=2**16, le=2**30)
    max_stream_duration_s: float = Field(4 * 3600.0, gt=0)
    max_clip_duration_s: float = Field(300.0, gt=0)
    max_spooled_bytes: int = Field(2 * 2**30, ge=2**20)
    max_frame_pixels: int = Field(4096 * 2304, ge=96 * 96)
    max_speakers: int = Field(4, ge=1, le=32)
    max_beam_size: int = Field(50, ge=1, le=200)
    idle_timeout_s: float = Field(30.0, gt=0, description="a client may send nothing for so long")
    media_timeout_s: float = Field(
        600.0, gt=0, description="a client may send heartbeats and no media for so long"
    )
    max_utterance_s: float = Field(20.0, ge=2, le=20, description="AV-HuBERT was trained on at most 20 s")

    sandbox_decoding: bool = Field(
        True,
        description="decode media and look for faces in processes of their own; false: in the server's process",
    )
    decoder_memory_bytes: int = Field(
        2 * 2**30, ge=5 * 2**27, description="address space of one decoder process, its program included"
    )
    decoder_timeout_s: float = Field(
        20.0, gt=0, description="a decoder that gives no sign of life for so long is killed"
    )

    shutdown_grace_period_s: float = Field(
        10.0, ge=0, description="calls in flight may finish for so long after SIGTERM"
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
            raise ValueError("tls_certificate and tls_key belong together: give both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        knows_callers = self.tls_client_ca is not None or self.token_file is not None
        is_secure = self.tls_certificate is not None and knows_callers
        if not self.listens_on_loopback and not is_secure and not self.allow_insecure:
            raise ValueError(
                f"{self.listen} can be reached from other machines: give tls_certificate, tls_key and tls_client_ca or "
                "token_file, or set allow_insecure if something else guards it"
            )
        return self

    @model_validator(mode="after")
    def _require_channelz_on_loopback(self) -> Self:
        if self.channelz_listen and not _is_loopback(self.channelz_listen):
            raise ValueError(
                f"channelz_listen is {self.channelz_listen}: it tells who is connected, so it must be on loopback, such "
                "as 127.0.0.1:50052"
            )
        return self

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return _is_loopback(self.listen)


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
