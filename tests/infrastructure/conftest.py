"""Recorded stacks shared by the tests; each variant is built once."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from recording_engine import record_stack

# Together these cover every value of every setting that changes the resources. Unrelated settings share a variant.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "protected": {
        "architecture": "arm64",
        "pythonVersion": "3.13",
        "audioEngine": "server",
        "faceEngine": "server",
        "lipModality": "video",
        "deletionProtection": True,
        "tags": ["team=speech"],
    },
    "nat": {
        "natGateway": True,
        "sessionManager": False,
        "flowLogs": False,
        "apiAuth": "cognito",
        "website": False,
        "audioEngine": "none",
        "faceEngine": "none",
    },
    "wide": {
        "availabilityZoneCount": 3,
        "endpointZoneCount": 3,
        "gpuOnDemandPercent": 0,
        "gpuInstanceTypes": ["g5.2xlarge"],
        "gpuMinInstances": 1,
        "gpuMaxInstances": 5,
        "modelUri": "s3://models-of-ours/lips/large.safetensors",
        "gpuWarmStart": "0 8 * * MON-FRI",
        "gpuWarmEnd": "0 18 * * MON-FRI",
    },
    "jwt": {
        "apiAuth": "jwt",
        "jwtIssuer": "https://id.example.org/",
        "jwtAudience": ["gorggle"],
        "logRetentionDays": 365,
        "alertEmails": ["ops@example.org"],
        "stopFleetOnBudget": False,
        "tracing": False,
    },
    "cognito": {
        "apiAuth": "cognito",
        "availabilityZoneCount": 1,
        "budgetScope": "stack",
        "monthlyBudgetUsd": 50,
    },
}


@functools.cache
def _build_stack(variant: str) -> Any:
    return record_stack(json.loads(json.dumps(VARIANTS[variant])))


@pytest.fixture(scope="session", params=VARIANTS)
def any_stack(request: pytest.FixtureRequest) -> Any:
    """Recorded stack of each variant in turn."""
    return _build_stack(request.param)


@pytest.fixture(scope="session")
def build_stack() -> Callable[[str], Any]:
    """Return a function that returns the recorded stack of a variant."""
    return _build_stack
