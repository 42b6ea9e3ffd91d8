"""The stack's settings, read once from Pulumi's configuration and validated.

``Pulumi.yaml`` repeats names, defaults and descriptions for ``pulumi config``; a test compares them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

# The stack name is part of every resource name; bucket names may have 63 characters, with account and region.
STACK_NAME = re.compile(r"[a-z][a-z0-9-]{0,14}[a-z0-9]")
# Instance families that the AMI supports, with one GPU each: the server uses one GPU.
GPU_INSTANCE = re.compile(r"(g4dn|g5|g6|g6e|gr6)\.(xlarge|2xlarge|4xlarge|8xlarge|16xlarge)")
S3_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^?#*]+)")
GPU_AMI_PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.13-amazon-linux-2023/latest/ami-id"
)
# The retention periods of CloudWatch Logs, in days.
RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653)

# An execution may have 25,000 events. A poll takes nine (wait, task, choice); the rest is for the other states.
MAX_POLLING_EVENTS, EVENTS_PER_POLL = 20_000, 9


class StackSettings(BaseModel):
    """Every setting of the stack, in the order of ``Pulumi.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    # Functions and pipeline: the names and defaults of [settings] in lambdas/functions.toml
    architecture: Literal["x86_64", "arm64"] = Field(
        "x86_64", description="CPU architecture of the Lambda functions"
    )
    python_version: Literal["3.12", "3.13"] = Field(
        "3.12", description="Python version of the Lambda functions"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="minimum log level of functions and server"
    )
    max_upload_bytes: int = Field(
        5 * 2**30,
        ge=2**20,
        le=5 * 2**30,
        description="maximum size of a video; S3 accepts up to 5 GiB in one upload",
    )
    upload_url_expiry_s: int = Field(
        3600, ge=60, le=43_200, description="validity of an upload URL, in seconds"
    )
    job_retention_days: int = Field(
        30, ge=1, le=3650, description="days after which a job, its video and its results are deleted"
    )
    presigned_url_expiry_s: int = Field(
        900, ge=60, le=43_200, description="validity of a presigned URL of a result or video, in seconds"
    )
    max_concurrent_jobs: int = Field(
        10, ge=1, le=1000, description="maximum number of concurrent jobs; further jobs are queued"
    )
    max_media_duration_s: int = Field(
        14_400,
        ge=1,
        le=14_400,
        description="maximum duration of a video, in seconds; Transcribe accepts up to 4 hours",
    )
    window_duration_s: int = Field(
        60, ge=10, le=300, description="duration of the windows that a long video is split into, in seconds"
    )
    lip_modality: Literal["av", "video"] = Field(
        "av", description="input of the server: lips and audio (av), or lips only (video)"
    )
    audio_engine: Literal["transcribe", "server", "none"] = Field(
        "transcribe", description="speech recognition: Amazon Transcribe, the server's audio mode, or none"
    )
    face_engine: Literal["rekognition", "server", "none"] = Field(
        "rekognition", description="face detection: Amazon Rekognition, the server's face tracks, or none"
    )
    language: str = Field(
        "",
        pattern=r"([a-z]{2,3}-[A-Z]{2})?",
        description="BCP 47 language code for Transcribe, such as en-US; empty: automatic identification",
    )
    max_speaker_labels: int = Field(
        10, ge=2, le=30, description="maximum number of speakers that Transcribe distinguishes"
    )
    max_concurrent_windows: int = Field(
        8,
        ge=1,
        le=1000,
        description="windows of one video that are processed concurrently; at most the streams of the fleet",
    )
    poll_interval_s: int = Field(
        15,
        ge=5,
        le=50,
        description="polling interval for Transcribe, Rekognition and fleet status, in seconds",
    )
    fleet_start_timeout_s: int = Field(
        900, ge=300, le=3600, description="maximum time a job waits for the GPU fleet, in seconds"
    )
    transcription_timeout_s: int = Field(
        7200, ge=300, le=36_000, description="maximum duration of a transcription, in seconds"
    )
    face_detection_timeout_s: int = Field(
        7200, ge=300, le=36_000, description="maximum duration of face detection, in seconds"
    )
    server_stall_timeout_s: int = Field(
        120,
        ge=30,
        le=600,
        description="time without a response after which a server is considered stalled, in seconds",
    )
    fleet_min_size_on_scale_up: int = Field(
        1, ge=1, le=50, description="minimum number of GPU instances that a waiting job requests"
    )
    prices: str = Field("", description="unit prices for cost estimates, as JSON; empty: AWS list prices")

    # GPU fleet
    gpu_instance_types: tuple[str, ...] = Field(
        ("g6.xlarge", "g5.xlarge", "g4dn.xlarge"),
        min_length=1,
        max_length=10,
        description="GPU instance types, in order of preference",
    )
    gpu_min_instances: int = Field(0, ge=0, le=50, description="minimum number of GPU instances")
    gpu_max_instances: int = Field(2, ge=1, le=50, description="maximum number of GPU instances")
    gpu_on_demand_percent: int = Field(
        100, ge=0, le=100, description="percentage of on-demand instances; the rest are spot instances"
    )
    gpu_max_streams: int = Field(
        8, ge=1, le=64, description="maximum number of concurrent streams of one instance"
    )
    gpu_target_streams_per_instance: float = Field(
        6.0, gt=0, le=64, description="target number of streams per instance for scaling"
    )
    gpu_idle_minutes: int = Field(
        15, ge=10, le=240, description="minutes without a stream after which the fleet scales to its minimum"
    )
    gpu_drain_minutes: int = Field(
        15, ge=1, le=60, description="minutes that active streams may take when an instance terminates"
    )
    gpu_volume_size_gib: int = Field(
        100, ge=75, le=1000, description="size of an instance's encrypted volume, in GiB"
    )
    gpu_ami_parameter: str = Field(
        GPU_AMI_PARAMETER,
        pattern=r"/aws/service/.+",
        description="public SSM parameter with the AMI id of the instances",
    )
    gpu_warm_start: str = Field(
        "",
        description="cron expression (UTC) at which one instance is started and kept, such as '0 8 * * MON-FRI'",
    )
    gpu_warm_end: str = Field(
        "", description="cron expression (UTC) at which that ends; required with gpuWarmStart"
    )
    model_uri: str = Field(
        "", description="s3://BUCKET/KEY of a model (.safetensors); empty: the embedded model"
    )

    # Network
    vpc_cidr: str = Field(
        "10.71.0.0/16", pattern=r"10\.\d{1,3}\.0\.0/16", description="CIDR block of the VPC"
    )
    availability_zone_count: int = Field(
        2,
        ge=1,
        le=6,
        description="number of availability zones, among those that offer the GPU instance type",
    )
    endpoint_zone_count: int = Field(
        1, ge=1, le=6, description="number of zones with interface endpoints; each zone is charged"
    )
    nat_gateway: bool = Field(False, description="use a NAT gateway instead of interface endpoints")
    session_manager: bool = Field(
        True, description="allow shells on instances through Session Manager (two more endpoints)"
    )
    flow_logs: bool = Field(True, description="log rejected connections in the VPC")

    # Data
    deletion_protection: bool = Field(
        False, description="refuse to delete the jobs table and buckets that are not empty"
    )

    # API and website
    api_auth: Literal["token", "jwt", "cognito"] = Field(
        "token",
        description="authentication of API requests: API token, JWT of jwtIssuer, or a Cognito user pool of the stack",
    )
    jwt_issuer: str = Field("", pattern=r"(https://.+)?", description="issuer of the JWTs (apiAuth: jwt)")
    jwt_audience: tuple[str, ...] = Field((), description="audiences of the JWTs (apiAuth: jwt)")
    api_rate_limit: int = Field(20, ge=1, le=10_000, description="API requests per second")
    api_burst_limit: int = Field(40, ge=1, le=5_000, description="burst limit of API requests")
    website: bool = Field(True, description="deploy the website with CloudFront")

    # Operations
    alert_emails: tuple[str, ...] = Field((), description="e-mail addresses for alarms and budget alerts")
    monthly_budget_usd: float = Field(200.0, gt=0, description="monthly budget in US dollars")
    budget_scope: Literal["account", "stack"] = Field(
        "account",
        description="costs that count towards the budget; stack: only those with the cost allocation tag gorggle:stack",
    )
    stop_fleet_on_budget: bool = Field(True, description="stop the GPU fleet when the budget is exceeded")
    log_retention_days: int = Field(30, description="retention period of logs, in days")
    tracing: bool = Field(True, description="trace functions and state machine with X-Ray")
    tags: tuple[str, ...] = Field((), description="additional tags for every resource, each NAME=VALUE")

    @field_validator("gpu_instance_types")
    @classmethod
    def _validate_gpu_instance_types(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for name in types:
            if not GPU_INSTANCE.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a supported type with one NVIDIA GPU; use g4dn, g5, g6, g6e or gr6"
                )
        if len(set(types)) != len(types):
            raise ValueError(f"{types} contains a type twice")
        return types

    @field_validator("model_uri")
    @classmethod
    def _validate_model_uri(cls, uri: str) -> str:
        if uri and not (S3_URI.fullmatch(uri) and uri.endswith(".safetensors")):
            raise ValueError(
                f"{uri!r} is not s3://BUCKET/KEY.safetensors; convert a checkpoint with `gorggle model convert` first"
            )
        return uri

    @field_validator("log_retention_days")
    @classmethod
    def _validate_log_retention(cls, days: int) -> int:
        if days not in RETENTION_DAYS:
            raise ValueError(f"CloudWatch Logs supports {RETENTION_DAYS} days, not {days}")
        return days

    @field_validator("alert_emails")
    @classmethod
    def _validate_alert_emails(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", address):
                raise ValueError(f"{address!r} is not an e-mail address")
        return addresses

    @field_validator("tags")
    @classmethod
    def _validate_tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for tag in tags:
            name, _, value = tag.partition("=")
            if not name or not value:
                raise ValueError(f"{tag!r} is not NAME=VALUE")
            if name.lower().startswith(("aws:", "gorggle:")):
                raise ValueError(f"the tag {name!r} is reserved for AWS and Gorggle")
        return tags

    @model_validator(mode="after")
    def _validate_combinations(self) -> Self:
        if self.gpu_min_instances > self.gpu_max_instances:
            raise ValueError(
                f"gpuMinInstances ({self.gpu_min_instances}) is above gpuMaxInstances ({self.gpu_max_instances})"
            )
        if self.fleet_min_size_on_scale_up > self.gpu_max_instances:
            raise ValueError(
                f"fleetMinSizeOnScaleUp ({self.fleet_min_size_on_scale_up}) is above gpuMaxInstances ({self.gpu_max_instances})"
            )
        if self.gpu_target_streams_per_instance > self.gpu_max_streams:
            raise ValueError(
                f"gpuTargetStreamsPerInstance ({self.gpu_target_streams_per_instance:g}) is above gpuMaxStreams ({self.gpu_max_streams}): "
                "the fleet would never scale out"
            )
        if bool(self.gpu_warm_start) != bool(self.gpu_warm_end):
            raise ValueError("gpuWarmStart and gpuWarmEnd must be set together")
        is_set = bool(self.jwt_issuer), bool(self.jwt_audience)
        if is_set != (self.api_auth == "jwt",) * 2:
            raise ValueError(
                "jwtIssuer and jwtAudience are both required with apiAuth: jwt, and allowed only there"
            )
        waits_s = (
            self.transcription_timeout_s + self.face_detection_timeout_s + 2 * self.fleet_start_timeout_s
        )
        if waits_s / self.poll_interval_s * EVENTS_PER_POLL > MAX_POLLING_EVENTS:
            min_interval_s = math.ceil(waits_s * EVENTS_PER_POLL / MAX_POLLING_EVENTS)
            raise ValueError(
                f"pollIntervalS ({self.poll_interval_s}) is too short for waits of up to {waits_s} s (transcriptionTimeoutS, faceDetectionTimeoutS, fleetStartTimeoutS): "
                f"an execution may have 25,000 events; set pollIntervalS to {min_interval_s} or more"
            )
        if self.endpoint_zone_count > self.availability_zone_count:
            raise ValueError(
                f"endpointZoneCount ({self.endpoint_zone_count}) is above availabilityZoneCount ({self.availability_zone_count})"
            )
        return self

    @property
    def tag_map(self) -> dict[str, str]:
        """The additional tags by name."""
        return dict(tag.split("=", 1) for tag in self.tags)

    @property
    def model_object(self) -> tuple[str, str] | None:
        """Bucket and key of the model; None for the embedded model."""
        match = S3_URI.fullmatch(self.model_uri)
        return (match["bucket"], match["key"]) if match else None


def read_settings(get_text: Callable[[str], str | None], get_json: Callable[[str], Any]) -> StackSettings:
    """Read and validate the settings.

    Args:
        get_text: returns a setting as text; None if it is not set.
        get_json: returns a setting as parsed JSON.

    Raises:
        ValueError: a value is invalid.
    """
    values: dict[str, Any] = {}
    for field, info in StackSettings.model_fields.items():
        name = to_camel(field)
        if get_text(name) is not None:
            values[name] = (
                get_text(name) if info.annotation is str or _is_literal(info.annotation) else get_json(name)
            )
    return StackSettings.model_validate(values)


def _is_literal(annotation: object) -> bool:
    return getattr(annotation, "__origin__", None) is Literal


def validate_stack_name(stack: str) -> str:
    """Return the stack's name.

    Raises:
        ValueError: it cannot be part of resource names.
    """
    if not STACK_NAME.fullmatch(stack):
        raise ValueError(
            f"the stack name {stack!r} becomes part of bucket names: "
            "use 2 to 16 lower-case letters, digits and hyphens, starting with a letter"
        )
    return stack
