"""Cost estimates of the stack's settings, with the pipeline's cost model."""

from __future__ import annotations

import json

from gorggle_lambdas.aws_costs import cost_model
from gorggle_lambdas.aws_costs.prices import parse_prices
from infrastructure import network
from infrastructure.config import StackSettings


def to_cost_config(settings: StackSettings) -> cost_model.StackConfig:
    """Convert the settings to the cost model's."""
    services = (
        len(network.INTERFACE_ENDPOINTS) + len(network.SESSION_MANAGER_ENDPOINTS) * settings.session_manager
    )
    return cost_model.StackConfig(
        gpu_instance_type=settings.gpu_instance_types[0],
        gpu_min_instances=settings.gpu_min_instances,
        gpu_on_demand_percent=settings.gpu_on_demand_percent,
        gpu_idle_minutes=settings.gpu_idle_minutes,
        gpu_volume_size_gib=settings.gpu_volume_size_gib,
        nat_gateway=settings.nat_gateway,
        endpoints=services,
        endpoint_zone_count=settings.endpoint_zone_count,
        audio_engine=settings.audio_engine,
        face_engine=settings.face_engine,
        window_duration_s=settings.window_duration_s,
        retention_days=settings.job_retention_days,
    )


def estimate_outputs(settings: StackSettings) -> dict[str, float]:
    """Return the estimates for the stack's outputs, in US dollars."""
    shape, unit = to_cost_config(settings), parse_prices(settings.prices)
    return {
        "idleUsdPerMonth": round(cost_model.estimate_idle_month(shape, unit).total, 2),
        "videoUsdPerHour": round(cost_model.estimate_video_hours(1.0, shape, unit).total, 2),
    }


def prices_json(settings: StackSettings) -> str:
    """Return the unit prices for functions that estimate jobs, with this stack's price of a GPU hour.

    Raises:
        PricesError: the setting is invalid.
    """
    gpu_per_h = cost_model.compute_gpu_hourly_cost(to_cost_config(settings), parse_prices(settings.prices))
    prices = json.loads(settings.prices) if settings.prices.strip() else {}
    return json.dumps({**prices, "gpu_per_h": round(gpu_per_h, 4)})
