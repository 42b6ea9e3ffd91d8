"""The stack's settings: read from Pulumi's configuration once, checked, and handed down frozen.

``Pulumi.yaml`` lists the same names with the same defaults and descriptions (a test compares them), so that
``pulumi config`` shows them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

# A stack's name is part of every resource's name: 63 characters are all that S3 allows with account and region.
STACK_NAME = re.compile(r"[a-z][a-z0-9-]{0,14}[a-z0-9]")
# GPU families that the image supports, one GPU an instance: the server runs one process on one GPU.
GPU_INSTANCE = re.compile(r"(g4dn|g5|g6|g6e|gr6)\.(xlarge|2xlarge|4xlarge|8xlarge|16xlarge)")
S3_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^?#*]+)")
GPU_AMI_PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.13-amazon-linux-2023/latest/ami-id"
)
# Retentions that CloudWatch Logs takes, in days.
RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653)


# An execution may have 25,000 events; a look at something that is waited for has nine (a wait, a call, a choice). The rest
# is for what an execution does beside looking.
MAX_POLLING_EVENTS, EVENTS_PER_POLL = 20_000, 9


class StackSettings(BaseModel):
    """Every setting of the stack, in the order of ``Pulumi.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    # Functions and pipeline: the names and defaults of [settings] in lambdas/functions.toml
    architecture: Literal["x86_64", "arm64"] = Field(
        "x86_64", description="processor of the Lambda functions"
    )
    python_version: Literal["3.12", "3.13"] = Field(
        "3.12", description="Python of the Lambda functions; 3.12 is the first on Amazon Linux 2023"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least level that functions and server log"
    )
    max_upload_bytes: int = Field(
        5 * 2**30, ge=2**20, le=5 * 2**30, description="largest video; S3 takes 5 GiB in one piece"
    )
    upload_url_expiry_s: int = Field(3600, ge=60, le=43_200, description="how long an upload address works")
    job_retention_days: int = Field(
        30, ge=1, le=3650, description="days until a job, its video and its results are deleted"
    )
    presigned_url_expiry_s: int = Field(
        900, ge=60, le=43_200, description="how long an address of a result or a video works"
    )
    max_concurrent_jobs: int = Field(
        10, ge=1, le=1000, description="jobs that run at once; further ones wait in order"
    )
    max_media_duration_s: int = Field(
        14_400, ge=1, le=14_400, description="longest video; Transcribe takes 4 hours"
    )
    window_duration_s: int = Field(60, ge=10, le=300, description="length of one piece of a long video")
    lip_modality: Literal["av", "video"] = Field(
        "av", description="what the server reads: lips and sound (av), or lips alone (video)"
    )
    audio_engine: Literal["transcribe", "server", "none"] = Field(
        "transcribe", description="who hears the words: Amazon Transcribe, the server's audio mode, or nobody"
    )
    face_engine: Literal["rekognition", "server", "none"] = Field(
        "rekognition", description="who finds faces: Amazon Rekognition, the server's tracks, or nobody"
    )
    language: str = Field(
        "",
        pattern=r"([a-z]{2,3}-[A-Z]{2})?",
        description="language for Transcribe, such as en-US; empty: it finds out",
    )
    max_speaker_labels: int = Field(10, ge=2, le=30, description="most speakers that Transcribe tells apart")
    max_concurrent_windows: int = Field(
        8, ge=1, le=1000, description="windows of one video read at once; at most the streams of the fleet"
    )
    poll_interval_s: int = Field(
        15, ge=5, le=50, description="seconds between two looks at a transcription, a face search, the fleet"
    )
    fleet_start_timeout_s: int = Field(
        900, ge=300, le=3600, description="how long a job waits for the GPU fleet"
    )
    transcription_timeout_s: int = Field(
        7200, ge=300, le=36_000, description="how long a transcription may take"
    )
    face_detection_timeout_s: int = Field(
        7200, ge=300, le=36_000, description="how long a face search may take"
    )
    server_stall_timeout_s: int = Field(
        120, ge=30, le=600, description="a server that sends nothing for so long has stalled"
    )
    fleet_min_size_on_scale_up: int = Field(
        1, ge=1, le=50, description="GPU instances that a waiting job asks for, at least"
    )
    prices: str = Field(
        "", description="unit prices as JSON, for the estimates; empty: the list prices of gorggle/prices.py"
    )

    # GPU fleet
    gpu_instance_types: tuple[str, ...] = Field(
        ("g6.xlarge", "g5.xlarge", "g4dn.xlarge"),
        min_length=1,
        max_length=10,
        description="GPU instance types, the preferred first",
    )
    gpu_min_instances: int = Field(0, ge=0, le=50, description="instances kept while idle")
    gpu_max_instances: int = Field(2, ge=1, le=50, description="instances at most")
    gpu_on_demand_percent: int = Field(
        100, ge=0, le=100, description="share of on-demand instances; the rest is spot"
    )
    gpu_max_streams: int = Field(8, ge=1, le=64, description="streams that one instance serves at once")
    gpu_target_streams_per_instance: float = Field(
        6.0, gt=0, le=64, description="streams per instance that scaling aims at"
    )
    gpu_idle_minutes: int = Field(
        15, ge=10, le=240, description="minutes without a stream until the fleet scales to its minimum"
    )
    gpu_drain_minutes: int = Field(
        15, ge=1, le=60, description="minutes that streams in flight may take when an instance ends"
    )
    gpu_volume_size_gib: int = Field(100, ge=75, le=1000, description="encrypted disk of an instance")
    gpu_ami_parameter: str = Field(
        GPU_AMI_PARAMETER,
        pattern=r"/aws/service/.+",
        description="public SSM parameter that names the instances' image",
    )
    gpu_warm_start: str = Field(
        "", description="cron (UTC) from when one instance is kept warm, such as '0 8 * * MON-FRI'"
    )
    gpu_warm_end: str = Field("", description="cron (UTC) until when; given together with gpuWarmStart")
    model_uri: str = Field(
        "", description="s3://BUCKET/KEY of a model (.safetensors); default: the embedded one"
    )

    # Network
    vpc_cidr: str = Field(
        "10.71.0.0/16", pattern=r"10\.\d{1,3}\.0\.0/16", description="addresses of the private network"
    )
    availability_zone_count: int = Field(
        2, ge=1, le=6, description="availability zones, of those that have the GPU type"
    )
    endpoint_zone_count: int = Field(
        1, ge=1, le=6, description="zones with interface endpoints of their own; each zone costs"
    )
    nat_gateway: bool = Field(False, description="a NAT gateway instead of interface endpoints")
    session_manager: bool = Field(
        True, description="shell on instances through Session Manager (two endpoints)"
    )
    flow_logs: bool = Field(True, description="log refused connections in the private network")

    # Data
    deletion_protection: bool = Field(
        False, description="refuse to destroy the table of jobs and buckets that are not empty"
    )

    # API and website
    api_auth: Literal["token", "jwt", "cognito"] = Field(
        "token", description="callers show an API token, a JWT of jwtIssuer, or one of a user pool made here"
    )
    jwt_issuer: str = Field("", pattern=r"(https://.+)?", description="issuer of the JWTs (apiAuth: jwt)")
    jwt_audience: tuple[str, ...] = Field((), description="audiences of the JWTs (apiAuth: jwt)")
    api_rate_limit: int = Field(20, ge=1, le=10_000, description="requests a second to the API")
    api_burst_limit: int = Field(40, ge=1, le=5_000, description="requests at once to the API")
    website: bool = Field(True, description="the browser application, behind CloudFront")

    # Operations
    alert_emails: tuple[str, ...] = Field((), description="who is told of alarms and of the budget")
    monthly_budget_usd: float = Field(200.0, gt=0, description="monthly budget for this stack")
    budget_scope: Literal["account", "stack"] = Field(
        "account",
        description="what the budget counts; stack: costs tagged gorggle:stack, once that tag is a cost allocation tag",
    )
    stop_fleet_on_budget: bool = Field(True, description="stop the GPU fleet when the budget is spent")
    log_retention_days: int = Field(30, description="days that logs are kept")
    tracing: bool = Field(
        True, description="X-Ray traces of functions and state machine; an HTTP API has none"
    )
    tags: tuple[str, ...] = Field((), description="further tags for every resource, each NAME=VALUE")

    @field_validator("gpu_instance_types")
    @classmethod
    def _validate_gpu_instance_types(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for name in types:
            if not GPU_INSTANCE.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a known type with one NVIDIA GPU; take one of g4dn, g5, g6, g6e or gr6"
                )
        if len(set(types)) != len(types):
            raise ValueError(f"{types} names a type twice")
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
            raise ValueError(f"CloudWatch keeps logs for {RETENTION_DAYS} days, not for {days}")
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
                raise ValueError(f"the tag {name!r} is taken: AWS and Gorggle set theirs themselves")
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
                "the fleet would never grow"
            )
        if bool(self.gpu_warm_start) != bool(self.gpu_warm_end):
            raise ValueError("gpuWarmStart and gpuWarmEnd belong together: give both or neither")
        given = bool(self.jwt_issuer), bool(self.jwt_audience)
        if given != (self.api_auth == "jwt",) * 2:
            raise ValueError("jwtIssuer and jwtAudience belong to apiAuth: jwt, and it needs both")
        waits_s = (
            self.transcription_timeout_s + self.face_detection_timeout_s + 2 * self.fleet_start_timeout_s
        )
        if waits_s / self.poll_interval_s * EVENTS_PER_POLL > MAX_POLLING_EVENTS:
            least_s = math.ceil(waits_s * EVENTS_PER_POLL / MAX_POLLING_EVENTS)
            raise ValueError(
                f"pollIntervalS ({self.poll_interval_s}) is too short for waits of up to {waits_s} s (transcriptionTimeoutS, faceDetectionTimeoutS, fleetStartTimeoutS): "
                f"an execution of Step Functions may have 25,000 events; set pollIntervalS to {least_s} or more"
            )
        if self.endpoint_zone_count > self.availability_zone_count:
            raise ValueError(
                f"endpointZoneCount ({self.endpoint_zone_count}) is above availabilityZoneCount ({self.availability_zone_count})"
            )
        return self

    @property
    def tag_map(self) -> dict[str, str]:
        """The further tags, by name."""
        return dict(tag.split("=", 1) for tag in self.tags)

    @property
    def model_object(self) -> tuple[str, str] | None:
        """Bucket and key of the model; None for the embedded one."""
        match = S3_URI.fullmatch(self.model_uri)
        return (match["bucket"], match["key"]) if match else None


def option_name(field: str) -> str:
    """The name that ``pulumi config`` knows a field by: camel case."""
    return to_camel(field)


def read_settings(get_text: Callable[[str], str | None], get_json: Callable[[str], Any]) -> StackSettings:
    """Read the settings.

    Args:
        get_text: the value of a name as text, None where it is not set.
        get_json: the value of a name as parsed JSON.

    Raises:
        ValueError: a value is not one that the setting can have.
    """
    given: dict[str, Any] = {}
    for field, info in StackSettings.model_fields.items():
        name = option_name(field)
        if get_text(name) is not None:
            given[name] = (
                get_text(name) if info.annotation is str or _is_literal(info.annotation) else get_json(name)
            )
    return StackSettings.model_validate(given)


def _is_literal(annotation: object) -> bool:
    return getattr(annotation, "__origin__", None) is Literal


def validate_stack_name(stack: str) -> str:
    """The stack's name, if resources can bear it.

    Raises:
        ValueError: they cannot.
    """
    if not STACK_NAME.fullmatch(stack):
        raise ValueError(
            f"the stack is called {stack!r}; its name becomes part of bucket names: "
            "take 2 to 16 small letters, digits and dashes, a letter first"
        )
    return stack
