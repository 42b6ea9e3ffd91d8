"""What the AWS pipeline costs: a small model of amounts times unit prices, in US dollars.

Two sums: what a stack costs in a month while nobody uses it, and what an hour of video costs on top. Prices are AWS's
on-demand prices in us-east-1 in 2026, without free tiers, taxes and data sent to the internet. Two numbers are ours:
how long a GPU and the functions work for a second of video. Real bills differ; the model says where money goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HOURS_PER_MONTH = 730.0
SECONDS_PER_HOUR = 3600.0
MINUTES_PER_HOUR = 60.0

# On-demand, Linux, us-east-1, per hour.
GPU_USD_PER_HOUR: Mapping[str, float] = {
    "g4dn.xlarge": 0.526,
    "g4dn.2xlarge": 0.752,
    "g4dn.4xlarge": 1.204,
    "g4dn.8xlarge": 2.176,
    "g4dn.16xlarge": 4.352,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g5.8xlarge": 2.448,
    "g5.16xlarge": 4.096,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6.8xlarge": 2.0144,
    "g6.16xlarge": 3.3968,
    "g6e.xlarge": 1.861,
    "g6e.2xlarge": 2.2421,
    "g6e.4xlarge": 3.0042,
    "g6e.8xlarge": 4.5286,
    "g6e.16xlarge": 7.5772,
    "gr6.4xlarge": 1.5392,
    "gr6.8xlarge": 2.4464,
}


@dataclass(frozen=True)
class Prices:
    """Unit prices in US dollars, and the two rates of work, which are assumed.

    ``spot_share`` is what spot costs of on-demand: it moves daily, and 0.4 is a cautious middle.
    """

    load_balancer_per_h: float = 0.0225
    endpoint_per_h: float = 0.01
    nat_per_h: float = 0.045
    address_per_h: float = 0.005
    secret_per_month: float = 0.40
    key_per_month: float = 1.00
    alarm_metric_per_month: float = 0.10
    disk_per_gib_month: float = 0.08
    storage_per_gib_month: float = 0.023
    transcribe_per_min: float = 0.024
    rekognition_per_min: float = 0.10
    lambda_per_gb_s: float = 0.0000166667
    state_transition: float = 0.000025
    spot_share: float = 0.4
    gpu_s_per_video_s: float = 0.25
    lambda_gb_s_per_video_s: float = 0.6


@dataclass(frozen=True)
class Stack:
    """What of a stack's settings costs money.

    Attributes:
        endpoints: interface endpoints in each of ``endpoint_zones``; none where there is a NAT gateway.
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
    gpu_disk_gib: int = 100
    nat: bool = False
    endpoints: int = 6
    endpoint_zones: int = 1
    secrets: int = 5
    alarm_metrics: int = 65
    sound: str = "transcribe"
    faces: str = "rekognition"
    window_s: float = 60.0
    video_gib_per_h: float = 2.0
    retention_days: int = 30


@dataclass(frozen=True)
class Estimate:
    """A sum and its parts, in US dollars."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """The sum."""
        return sum(self.parts.values())


def gpu_per_hour(stack: Stack, prices: Prices) -> float:
    """One instance with its disk for an hour, at the stack's mix of on-demand and spot.

    Raises:
        ValueError: the type's price is not known here.
    """
    if stack.gpu_instance_type not in GPU_USD_PER_HOUR:
        known = ", ".join(sorted(GPU_USD_PER_HOUR))
        raise ValueError(f"the price of {stack.gpu_instance_type} is not known; known are {known}")
    on_demand = stack.gpu_on_demand_percent / 100
    instance = GPU_USD_PER_HOUR[stack.gpu_instance_type] * (on_demand + (1 - on_demand) * prices.spot_share)
    return instance + stack.gpu_disk_gib * prices.disk_per_gib_month / HOURS_PER_MONTH


def idle_month(stack: Stack | None = None, prices: Prices | None = None) -> Estimate:
    """A month in which nobody uses the stack."""
    stack, prices = stack or Stack(), prices or Prices()
    way_out = (
        {"NAT gateway": (prices.nat_per_h + prices.address_per_h) * HOURS_PER_MONTH}
        if stack.nat
        else {
            "interface endpoints": stack.endpoints
            * stack.endpoint_zones
            * prices.endpoint_per_h
            * HOURS_PER_MONTH
        }
    )
    return Estimate(
        {
            "load balancer": prices.load_balancer_per_h * HOURS_PER_MONTH,
            **way_out,
            "alarms": stack.alarm_metrics * prices.alarm_metric_per_month,
            "secrets and key": stack.secrets * prices.secret_per_month + prices.key_per_month,
            "GPU instances kept": stack.gpu_min_instances * gpu_per_hour(stack, prices) * HOURS_PER_MONTH,
        }
    )


def video_hours(hours: float, stack: Stack | None = None, prices: Prices | None = None) -> Estimate:
    """So many hours of video, given as one job to a sleeping fleet: with its start and its wait for more work."""
    stack, prices = stack or Stack(), prices or Prices()
    seconds = hours * SECONDS_PER_HOUR
    readings = 2 if stack.sound == "server" else 1
    awake_h = (stack.gpu_start_minutes + stack.gpu_idle_minutes) / MINUTES_PER_HOUR
    if stack.gpu_min_instances:
        awake_h = 0.0
    working_h = readings * hours * prices.gpu_s_per_video_s
    months_kept = stack.retention_days / 30
    return Estimate(
        {
            "Transcribe": hours
            * MINUTES_PER_HOUR
            * prices.transcribe_per_min
            * (stack.sound == "transcribe"),
            "Rekognition": hours
            * MINUTES_PER_HOUR
            * prices.rekognition_per_min
            * (stack.faces == "rekognition"),
            "GPU at work": working_h * gpu_per_hour(stack, prices),
            "GPU waking and waiting": awake_h * gpu_per_hour(stack, prices),
            "Lambda": seconds * prices.lambda_gb_s_per_video_s * prices.lambda_per_gb_s,
            # Each window of a long video is three states, and each job some forty.
            "Step Functions": (40 + 3 * seconds / stack.window_s) * prices.state_transition,
            "S3": hours * stack.video_gib_per_h * prices.storage_per_gib_month * months_kept,
        }
    )
