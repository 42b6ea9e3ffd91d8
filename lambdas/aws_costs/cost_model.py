"""Cost model of the AWS pipeline: amounts times unit prices (``gorggle_lambdas.aws_costs.prices``), in US dollars.

Used by ``gorggle cost``, the stack's outputs, and the estimate and final cost of jobs. It covers an idle month of a
stack, the processing of a video, and the start of the fleet. Not included: data transfer to the internet, logs beyond a
few MB, CloudFront, free tiers, taxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.aws_costs.prices import LIST_PRICES, Prices

HOURS_PER_MONTH = 730.0
SECONDS_PER_HOUR = 3600.0
SECONDS_PER_MINUTE = 60.0
MINUTES_PER_HOUR = 60.0
DAYS_PER_MONTH = 30.0
# Minimum billed duration of a transcription job.
MIN_BILLED_TRANSCRIPTION_S = 15.0
# About forty states per job, and three more per window that the server transcribes.
TRANSITIONS_PER_JOB, TRANSITIONS_PER_WINDOW = 40, 3

# Names of the parts for users.
LABELS: Mapping[str, str] = {
    "load_balancer": "load balancer",
    "endpoints": "interface endpoints",
    "nat": "NAT gateway",
    "alarms": "alarms",
    "secrets": "secrets and key",
    "gpu_kept": "idle GPU instances",
    "transcribe": "Transcribe",
    "rekognition": "Rekognition",
    "gpu": "GPU processing",
    "gpu_waiting": "GPU start and idle time",
    "lambda": "Lambda",
    "step_functions": "Step Functions",
    "s3": "S3",
}


@dataclass(frozen=True)
class StackConfig:
    """Settings of a stack that affect its cost.

    Attributes:
        endpoints: interface endpoints per availability zone; none with a NAT gateway.
        gpu_idle_minutes: time until an idle instance is terminated.
        gpu_start_minutes: time from launch until an instance is ready, also billed.
        alarm_metrics: metrics with alarms.
        video_gib_per_h: size of an hour of video, stored for ``retention_days``.
    """

    gpu_instance_type: str = "g6.xlarge"
    gpu_min_instances: int = 0
    gpu_on_demand_percent: int = 100
    gpu_idle_minutes: float = 15.0
    gpu_start_minutes: float = 6.0
    gpu_volume_size_gib: int = 100
    nat_gateway: bool = False
    endpoints: int = 6
    endpoint_zone_count: int = 1
    secrets: int = 5
    alarm_metrics: int = 57
    audio_engine: str = "transcribe"
    face_engine: str = "rekognition"
    window_duration_s: float = 60.0
    video_gib_per_h: float = 2.0
    retention_days: int = 30


DEFAULT_STACK = StackConfig()


@dataclass(frozen=True)
class JobUsage:
    """Billed amounts of one video: estimated before, measured after.

    Attributes:
        transcribed_s: seconds of audio processed by Transcribe.
        face_detection_s: seconds of video processed by Rekognition.
        gpu_s: GPU time.
        lambda_gb_s: Lambda compute.
        windows: windows transcribed by the server, of lips and audio.
        gib_months: storage of the video.
    """

    transcribed_s: float = 0.0
    face_detection_s: float = 0.0
    gpu_s: float = 0.0
    lambda_gb_s: float = 0.0
    windows: float = 0.0
    gib_months: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """An amount by part in US dollars; ``LABELS`` has the names of the parts."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return sum(self.parts.values())

    def to_document(self) -> dict[str, Any]:
        """Return the estimate as JSON types, rounded to a hundredth of a cent."""
        rounded = {name: round(usd, 4) for name, usd in self.parts.items()}
        return {"currency": "USD", "total": round(self.total, 4), **rounded}


def estimate_usage(
    duration_s: float,
    *,
    reads_lips: bool = True,
    audio_engine: str = "transcribe",
    face_engine: str = "rekognition",
    window_duration_s: float = 60.0,
    gib_months: float = 0.0,
    prices: Prices = LIST_PRICES,
) -> JobUsage:
    """Estimate the billed amounts of a video; engines as in ``StackConfig``."""
    transcriptions = reads_lips + (audio_engine == "server")
    return JobUsage(
        transcribed_s=duration_s if audio_engine == "transcribe" else 0.0,
        face_detection_s=duration_s if face_engine == "rekognition" else 0.0,
        gpu_s=transcriptions * duration_s * prices.gpu_s_per_video_s,
        lambda_gb_s=duration_s * prices.lambda_gb_s_per_video_s,
        windows=transcriptions * duration_s / window_duration_s,
        gib_months=gib_months,
    )


def compute_usage_cost(usage: JobUsage, gpu_per_h: float, prices: Prices = LIST_PRICES) -> Estimate:
    """Return the cost of the processing of one video; ``gpu_per_h`` is ``compute_gpu_hourly_cost``."""
    billed_s = max(usage.transcribed_s, MIN_BILLED_TRANSCRIPTION_S) if usage.transcribed_s else 0.0
    transitions = TRANSITIONS_PER_JOB + TRANSITIONS_PER_WINDOW * usage.windows
    return Estimate(
        {
            "transcribe": billed_s / SECONDS_PER_MINUTE * prices.transcribe_per_min,
            "rekognition": usage.face_detection_s / SECONDS_PER_MINUTE * prices.rekognition_per_min,
            "gpu": usage.gpu_s / SECONDS_PER_HOUR * gpu_per_h,
            "lambda": usage.lambda_gb_s * prices.lambda_per_gb_s,
            "step_functions": transitions * prices.state_transition,
            "s3": usage.gib_months * prices.storage_per_gib_month,
        }
    )


def compute_gpu_hourly_cost(stack: StackConfig = DEFAULT_STACK, prices: Prices = LIST_PRICES) -> float:
    """Return the cost of one instance with its volume per hour, at the stack's mix of on-demand and spot.

    Raises:
        ValueError: the instance type has no price.
    """
    if prices.gpu_per_h is not None:
        return prices.gpu_per_h
    if stack.gpu_instance_type not in prices.instances:
        known_types = ", ".join(sorted(prices.instances))
        raise ValueError(
            f"there is no price for {stack.gpu_instance_type} (known: {known_types}): add it to the prices, "
            f'as {{"instances": {{"{stack.gpu_instance_type}": USD-AN-HOUR}}}}'
        )
    on_demand = stack.gpu_on_demand_percent / 100
    on_demand_price = prices.instances[stack.gpu_instance_type]
    instance = on_demand_price * (on_demand + (1 - on_demand) * prices.spot_share)
    return instance + stack.gpu_volume_size_gib * prices.disk_per_gib_month / HOURS_PER_MONTH


def estimate_idle_month(stack: StackConfig = DEFAULT_STACK, prices: Prices = LIST_PRICES) -> Estimate:
    """Estimate a month without jobs."""
    endpoints = stack.endpoints * stack.endpoint_zone_count * prices.endpoint_per_h * HOURS_PER_MONTH
    nat = (prices.nat_per_h + prices.address_per_h) * HOURS_PER_MONTH
    return Estimate(
        {
            "load_balancer": prices.load_balancer_per_h * HOURS_PER_MONTH,
            **({"nat": nat} if stack.nat_gateway else {"endpoints": endpoints}),
            "alarms": stack.alarm_metrics * prices.alarm_metric_per_month,
            "secrets": stack.secrets * prices.secret_per_month + prices.key_per_month,
            "gpu_kept": stack.gpu_min_instances * compute_gpu_hourly_cost(stack, prices) * HOURS_PER_MONTH,
        }
    )


def estimate_video_hours(
    hours: float, stack: StackConfig = DEFAULT_STACK, prices: Prices = LIST_PRICES
) -> Estimate:
    """Estimate hours of video as one job on an idle fleet, including its start and idle time."""
    work = estimate_usage(
        hours * SECONDS_PER_HOUR,
        audio_engine=stack.audio_engine,
        face_engine=stack.face_engine,
        window_duration_s=stack.window_duration_s,
        gib_months=hours * stack.video_gib_per_h * stack.retention_days / DAYS_PER_MONTH,
        prices=prices,
    )
    gpu_per_h = compute_gpu_hourly_cost(stack, prices)
    running_h = (stack.gpu_start_minutes + stack.gpu_idle_minutes) / MINUTES_PER_HOUR
    waiting = 0.0 if stack.gpu_min_instances else running_h * gpu_per_h
    return Estimate({**compute_usage_cost(work, gpu_per_h, prices).parts, "gpu_waiting": waiting})
