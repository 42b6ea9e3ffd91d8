"""Raises the desired capacity of the GPU fleet for a waiting job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.errors import AwsUnavailableError, FleetTimeoutError
from gorggle_lambdas.common.observability import count, logger, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import compute_deadline

RAISES = (FleetTimeoutError, AwsUnavailableError)


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    fleet: str
    fleet_min_size_on_scale_up: int
    fleet_start_timeout_s: int


@task
def handler(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Return the deadline until which the fleet must be ready."""
    settings = load_settings(Settings)
    scale_up(settings.fleet, settings.fleet_min_size_on_scale_up)
    return {"is_ready": False, "deadline": compute_deadline(settings.fleet_start_timeout_s)}


def scale_up(fleet: str, min_size: int) -> None:
    """Raise the fleet's desired capacity to ``min_size``; never lower it, because other jobs may need more.

    Raises:
        FleetTimeoutError: the fleet does not exist, or its maximum size is 0: waiting is useless.
    """
    scaling = aws_clients.client("autoscaling")
    groups = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[fleet])["AutoScalingGroups"]
    if not groups:
        raise FleetTimeoutError(f"there is no GPU fleet called {fleet}")
    desired, max_size = groups[0]["DesiredCapacity"], groups[0]["MaxSize"]
    if max_size < 1:
        raise FleetTimeoutError("the GPU fleet is disabled: its maximum size is 0")
    target = min(max(desired, min_size), max_size)
    if target > desired:
        logger.info("scaling up the fleet", desired=target)
        count("FleetScaleUps")
        scaling.set_desired_capacity(AutoScalingGroupName=fleet, DesiredCapacity=target, HonorCooldown=False)
