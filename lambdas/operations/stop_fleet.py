"""Lambda: stops the GPU fleet when the month's budget is spent.

A fleet with a largest size of zero cannot be woken; ``pulumi up`` gives it its size back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import boto3


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Set the fleet's sizes to zero."""
    fleet = os.environ["FLEET"]
    boto3.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=fleet, MinSize=0, MaxSize=0, DesiredCapacity=0
    )
    subjects = [record["Sns"].get("Subject") for record in event["Records"]]
    print(
        json.dumps(
            {"level": "WARNING", "message": "the fleet is stopped", "fleet": fleet, "because": subjects}
        )
    )
