"""What the AWS pipeline costs: amounts times unit prices (``gorggle_lambdas.aws_costs.prices``), in US dollars.

One model for everybody: ``gorggle cost``, the stack's outputs, a job's estimate before it runs and its cost after. Three
sums: what a stack costs in a month while nobody uses it, what the work for a video costs, and what waking the fleet for
it costs. Not counted: data sent to the internet, logs beyond a few MB, CloudFront, free tiers, taxes. Real bills differ; the
model says where money goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.aws_costs.prices import Prices

HOURS_PER_MONTH = 730.0
SECONDS_PER_HOUR = 3600.0
SECONDS_PER_MINUTE = 60.0
MINUTES_PER_HOUR = 60.0
DAYS_PER_MONTH = 30.0
# Transcribe bills at least so much of each job.
MIN_BILLED_TRANSCRIPTION_S = 15.0
# Each job is some forty states, and each window that the server reads three more.
TRANSITIONS_PER_JOB, TRANSITIONS_PER_WINDOW = 40, 3

# What people call the parts of an estimate.
LABELS: Mapping[str, str] = {
    "load_balancer": "load balancer",
    "endpoints": "interface endpoints",
    "nat": "NAT gateway",
    "alarms": "alarms",
    "secrets": "secrets and key",
    "gpu_kept": "GPU instances kept",
    "transcribe": "Transcribe",
    "rekognition": "Rekognition",
    "gpu": "GPU at work",
    "gpu_waiting": "GPU waking and waiting",
    "lambda": "Lambda",
    "step_functions": "Step Functions",
    "s3": "S3",
}


@dataclass(frozen=True)
class StackConfig:
    """What of a stack's settings costs money.

    Attributes:
        endpoints: interface endpoints in each of ``endpoint_zone_count``; none where there is a NAT gateway.
        gpu_idle_minutes: how long an instance waits for further work before the fleet sleeps.
        gpu_start_minutes: from waking an instance until it is ready; paid, too.
        alarm_metrics: metrics that alarms look at.
        video_gib_per_h: size of an hour of video, kept for ``retention_days``.
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


@dataclass(frozen=True)
class JobUsage:
    """What one video has AWS do: planned before, measured after.

    Attributes:
        transcribed_s: seconds that Transcribe hears.
        searched_s: seconds that Rekognition looks at.
        gpu_s: how long the GPU works.
        lambda_gb_s: what the functions take.
        windows: pieces that the server reads, of the lips and of the sound.
        gib_months: the video, for as long as it is kept.
    """

    transcribed_s: float = 0.0
    searched_s: float = 0.0
    gpu_s: float = 0.0
    lambda_gb_s: float = 0.0
    windows: float = 0.0
    gib_months: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A sum and its parts, in US dollars; ``LABELS`` says what people call the parts."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """The sum."""
        return sum(self.parts.values())

    def to_document(self) -> dict[str, Any]:
        """As JSON's types, to a hundredth of a cent."""
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
    prices: Prices | None = None,
) -> JobUsage:
    """What a video will probably have AWS do.

    Args:
        duration_s: of the video.
        reads_lips: whether the server reads lips.
        audio_engine: who hears: "transcribe", "server" or "none".
        face_engine: who sees: "rekognition", "server" or "none".
        window_duration_s: length of a window.
        gib_months: the video's size times how long it is kept.
        prices: for the two rates of work.
    """
    prices = prices or Prices()
    readings = reads_lips + (audio_engine == "server")
    return JobUsage(
        transcribed_s=duration_s if audio_engine == "transcribe" else 0.0,
        searched_s=duration_s if face_engine == "rekognition" else 0.0,
        gpu_s=readings * duration_s * prices.gpu_s_per_video_s,
        lambda_gb_s=duration_s * prices.lambda_gb_s_per_video_s,
        windows=readings * duration_s / window_duration_s,
        gib_months=gib_months,
    )


def compute_usage_cost(usage: JobUsage, gpu_per_h: float, prices: Prices | None = None) -> Estimate:
    """What the work for one video costs.

    Args:
        usage: planned or measured.
        gpu_per_h: see ``compute_gpu_hourly_cost``.
        prices: unit prices.
    """
    prices = prices or Prices()
    billed_s = max(usage.transcribed_s, MIN_BILLED_TRANSCRIPTION_S) if usage.transcribed_s else 0.0
    transitions = TRANSITIONS_PER_JOB + TRANSITIONS_PER_WINDOW * usage.windows
    return Estimate(
        {
            "transcribe": billed_s / SECONDS_PER_MINUTE * prices.transcribe_per_min,
            "rekognition": usage.searched_s / SECONDS_PER_MINUTE * prices.rekognition_per_min,
            "gpu": usage.gpu_s / SECONDS_PER_HOUR * gpu_per_h,
            "lambda": usage.lambda_gb_s * prices.lambda_per_gb_s,
            "step_functions": transitions * prices.state_transition,
            "s3": usage.gib_months * prices.storage_per_gib_month,
        }
    )


def compute_gpu_hourly_cost(stack: StackConfig | None = None, prices: Prices | None = None) -> float:
    """One instance with its disk for an hour, at the stack's mix of on-demand and spot.

    Raises:
        ValueError: the type's price is not known.
    """
    stack, prices = stack or StackConfig(), prices or Prices()
    if prices.gpu_per_h is not None:
        return prices.gpu_per_h
    if stack.gpu_instance_type not in prices.instances:
        known = ", ".join(sorted(prices.instances))
        raise ValueError(
            f"the price of {stack.gpu_instance_type} is not known; known are {known}: give it in the prices, "
            f'as {{"instances": {{"{stack.gpu_instance_type}": USD-AN-HOUR}}}}'
        )
    on_demand = stack.gpu_on_demand_percent / 100
    listed = prices.instances[stack.gpu_instance_type]
    instance = listed * (on_demand + (1 - on_demand) * prices.spot_share)
    return instance + stack.gpu_volume_size_gib * prices.disk_per_gib_month / HOURS_PER_MONTH


def estimate_idle_month(stack: StackConfig | None = None, prices: Prices | None = None) -> Estimate:
    """A month in which nobody uses the stack."""
    stack, prices = stack or StackConfig(), prices or Prices()
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
    hours: float, stack: StackConfig | None = None, prices: Prices | None = None
) -> Estimate:
    """So many hours of video, given as one job to a sleeping fleet: with its start and its wait for more work."""
    stack, prices = stack or StackConfig(), prices or Prices()
    work = estimate_usage(
        hours * SECONDS_PER_HOUR,
        audio_engine=stack.audio_engine,
        face_engine=stack.face_engine,
        window_duration_s=stack.window_duration_s,
        gib_months=hours * stack.video_gib_per_h * stack.retention_days / DAYS_PER_MONTH,
        prices=prices,
    )
    gpu_per_h = compute_gpu_hourly_cost(stack, prices)
    awake_h = (stack.gpu_start_minutes + stack.gpu_idle_minutes) / MINUTES_PER_HOUR
    waiting = 0.0 if stack.gpu_min_instances else awake_h * gpu_per_h
    return Estimate({**compute_usage_cost(work, gpu_per_h, prices).parts, "gpu_waiting": waiting})
