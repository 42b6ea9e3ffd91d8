"""What the stack's settings cost, by the cost model of the SDK."""

from __future__ import annotations

import json

from gorggle import costs

from infrastructure import network
from infrastructure.settings import StackSettings


def cost_stack(settings: StackSettings) -> costs.Stack:
    """The settings as the cost model sees them."""
    services = len(network.INTERFACES) + len(network.SESSION_MANAGER) * settings.session_manager
    return costs.Stack(
        gpu_instance_type=settings.gpu_instance_types[0],
        gpu_min_instances=settings.gpu_min_instances,
        gpu_on_demand_percent=settings.gpu_on_demand_percent,
        gpu_idle_minutes=settings.gpu_idle_minutes,
        gpu_disk_gib=settings.gpu_disk_gib,
        nat=settings.nat,
        endpoints=services,
        endpoint_zones=settings.endpoint_zones,
        sound=settings.sound_engine,
        faces=settings.faces_engine,
        window_s=settings.window_s,
        retention_days=settings.job_retention_days,
    )


def outputs(settings: StackSettings) -> dict[str, float]:
    """Two sums for the stack's outputs, in US dollars."""
    shape = cost_stack(settings)
    return {
        "idleUsdPerMonth": round(costs.idle_month(shape).total, 2),
        "videoUsdPerHour": round(costs.video_hours(1.0, shape).total, 2),
    }


def prices(settings: StackSettings) -> str:
    """Unit prices for the functions that estimate jobs: those given, else those of this stack's GPU type."""
    if settings.prices:
        return settings.prices
    unit = costs.Prices()
    return json.dumps(
        {
            "transcribe_per_min": unit.transcribe_per_min,
            "rekognition_per_min": unit.rekognition_per_min,
            "gpu_per_h": round(costs.gpu_per_hour(cost_stack(settings), unit), 4),
            "lambda_per_gb_s": unit.lambda_per_gb_s,
            "gpu_s_per_video_s": unit.gpu_s_per_video_s,
            "lambda_gb_s_per_video_s": unit.lambda_gb_s_per_video_s,
        }
    )
