"""Lambda: stops the GPU fleet when the monthly budget is exceeded.

A fleet with maximum size 0 cannot be scaled up; ``pulumi up`` restores its size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import boto3


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Set the fleet's sizes to 0."""
    fleet = os.environ["FLEET"]
    boto3.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=fleet, MinSize=0, MaxSize=0, DesiredCapacity=0
    )
    subjects = [record["Sns"].get("Subject") for record in event["Records"]]
    print(json.dumps({"level": "WARNING", "message": "fleet stopped", "fleet": fleet, "reasons": subjects}))
