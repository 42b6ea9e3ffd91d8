"""Asks for GPU instances if there are none, or fewer than a waiting job needs."""

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
    """Give until when the fleet must be ready."""
    chosen = load_settings(Settings)
    scale_up(chosen.fleet, chosen.fleet_min_size_on_scale_up)
    return {"is_ready": False, "deadline": compute_deadline(chosen.fleet_start_timeout_s)}


def scale_up(fleet: str, min_size: int) -> None:
    """Raise what the fleet should have to ``min_size``, never lower it: others may need more.

    Raises:
        FleetTimeoutError: there is no such fleet, or it may have no instance: waiting would be in vain.
    """
    scaling = aws_clients.client("autoscaling")
    groups = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[fleet])["AutoScalingGroups"]
    if not groups:
        raise FleetTimeoutError(f"there is no GPU fleet called {fleet}")
    desired, most = groups[0]["DesiredCapacity"], groups[0]["MaxSize"]
    if most < 1:
        raise FleetTimeoutError("the GPU fleet is switched off: its largest size is 0")
    wanted = min(max(desired, min_size), most)
    if wanted > desired:
        logger.info("waking the fleet", wanted=wanted)
        count("FleetScaleUps")
        scaling.set_desired_capacity(AutoScalingGroupName=fleet, DesiredCapacity=wanted, HonorCooldown=False)
