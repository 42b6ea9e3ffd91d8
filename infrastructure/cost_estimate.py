"""What the stack's settings cost, by the one cost model that there is: the SDK's."""

from __future__ import annotations

import json

from gorggle_lambdas.aws_costs import cost_model
from gorggle_lambdas.aws_costs.prices import prices_of
from infrastructure import network
from infrastructure.config import StackSettings


def cost_stack(settings: StackSettings) -> cost_model.StackConfig:
    """The settings as the cost model sees them."""
    services = len(network.INTERFACES) + len(network.SESSION_MANAGER) * settings.session_manager
    return cost_model.StackConfig(
        gpu_instance_type=settings.gpu_instance_types[0],
        gpu_min_instances=settings.gpu_min_instances,
        gpu_on_demand_percent=settings.gpu_on_demand_percent,
        gpu_idle_minutes=settings.gpu_idle_minutes,
        gpu_volume_size_gib=settings.gpu_volume_size_gib,
        nat_gateway=settings.nat_gateway,
        endpoints=services,
        endpoint_zone_count=settings.endpoint_zone_count,
        sound=settings.audio_engine,
        faces=settings.face_engine,
        window_s=settings.window_duration_s,
        retention_days=settings.job_retention_days,
    )


def outputs(settings: StackSettings) -> dict[str, float]:
    """Two sums for the stack's outputs, in US dollars."""
    shape, unit = cost_stack(settings), prices_of(settings.prices)
    return {
        "idleUsdPerMonth": round(cost_model.idle_month(shape, unit).total, 2),
        "videoUsdPerHour": round(cost_model.video_hours(1.0, shape, unit).total, 2),
    }


def prices(settings: StackSettings) -> str:
    """Unit prices for the functions that estimate jobs: those given, and what this stack's instances cost an hour.

    Raises:
        PricesError: the setting holds something else.
    """
    gpu_per_h = cost_model.gpu_per_hour(cost_stack(settings), prices_of(settings.prices))
    given = json.loads(settings.prices) if settings.prices.strip() else {}
    return json.dumps({**given, "gpu_per_h": round(gpu_per_h, 4)})
