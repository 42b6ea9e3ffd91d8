"""Tests of the stack settings: defaults, validation, and consistency with Pulumi.yaml, the manual and the manifest."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from gorggle_lambdas.state_machine import build_definition
from infrastructure import function_manifest
from infrastructure.config import (
    EVENTS_PER_POLL,
    StackSettings,
    read_settings,
    validate_stack_name,
)

ROOT = Path(__file__).resolve().parents[2]
PROJECT = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())


def get_default(field: str) -> Any:
    info = StackSettings.model_fields[field]
    return info.get_default(call_default_factory=True)


def test_pulumi_yaml_lists_every_setting_with_its_default_and_description() -> None:
    documented = {name: body for name, body in PROJECT["config"].items() if ":" not in name}
    assert set(documented) == {to_camel(field) for field in StackSettings.model_fields}
    for field, info in StackSettings.model_fields.items():
        entry = documented[to_camel(field)]
        assert entry["description"] == info.description, field
        text = json.dumps(entry["default"])
        found = StackSettings.model_validate({to_camel(field): json.loads(text)})
        assert getattr(found, field) == get_default(field), field


def test_the_manual_lists_every_setting() -> None:
    manual = (ROOT / "docs" / "aws.md").read_text()
    for field in StackSettings.model_fields:
        assert f"`{to_camel(field)}`" in manual, field


def test_settings_of_the_functions_have_the_same_defaults() -> None:
    manifest_settings = function_manifest.read_manifest(ROOT / "lambdas/functions.toml").settings
    assert manifest_settings
    for name, body in manifest_settings.items():
        assert name in StackSettings.model_fields, name
        assert get_default(name) == body["default"], name


def test_settings_are_parsed_from_pulumi_config() -> None:
    config = {
        "architecture": "arm64",
        "pythonVersion": "3.13",
        "gpuInstanceTypes": '["g5.xlarge"]',
        "natGateway": "true",
        "maxConcurrentJobs": "3",
    }
    settings = read_settings(config.get, lambda name: json.loads(config[name]))
    assert (
        settings.architecture,
        settings.python_version,
        settings.nat_gateway,
        settings.max_concurrent_jobs,
    ) == (
        "arm64",
        "3.13",
        True,
        3,
    )
    assert settings.gpu_instance_types == ("g5.xlarge",)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gpuInstanceTypes": ["p4d.24xlarge"]}, "one NVIDIA GPU"),
        ({"gpuInstanceTypes": []}, "at least 1"),
        ({"gpuInstanceTypes": ["g5.xlarge", "g5.xlarge"]}, "twice"),
        ({"gpuMinInstances": 3}, "above gpuMaxInstances"),
        ({"gpuTargetStreamsPerInstance": 9}, "would never scale out"),
        ({"fleetMinSizeOnScaleUp": 3}, "above gpuMaxInstances"),
        ({"gpuWarmStart": "0 8 * * *"}, "must be set together"),
        ({"apiAuth": "jwt"}, "both required"),
        ({"jwtIssuer": "https://id.example.org"}, "apiAuth: jwt"),
        ({"endpointZoneCount": 3}, "above availabilityZoneCount"),
        ({"modelUri": "s3://bucket/model.pt"}, "gorggle model convert"),
        ({"modelUri": "/home/me/model.safetensors"}, "s3://"),
        ({"logRetentionDays": 31}, "not 31"),
        ({"alertEmails": ["nobody"]}, "e-mail"),
        ({"tags": ["aws:owner=me"]}, "is reserved"),
        ({"tags": ["owner"]}, "NAME=VALUE"),
        ({"pythonVersion": "3.11"}, "3.12"),
        ({"maxUploadBytes": 6 * 2**30}, "less than or equal"),
        ({"pollIntervalS": 5}, "25,000 events; set pollIntervalS to 8 or more"),
        (
            {"transcriptionTimeoutS": 36_000, "faceDetectionTimeoutS": 36_000},
            "set pollIntervalS to 34 or more",
        ),
        ({"transcriptionTimeoutS": 40_000}, "less than or equal"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_an_invalid_setting_is_rejected(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StackSettings.model_validate(config)


def test_each_polling_loop_adds_events_per_poll_history_events() -> None:
    """Wait and Choice are entered and exited; a Task is also scheduled, started and completed."""
    events = {"Wait": 2, "Choice": 2, "Task": 5}
    manifest = tomllib.loads((ROOT / "lambdas/functions.toml").read_text())["state_machine"]
    definition = build_definition({name: name for name in (*manifest["calls"], *manifest["parameters"])})
    loops = list(find_polling_loops(definition))
    assert len(loops) == 4
    for loop in loops:
        assert sum(events[kind] for kind in loop) == EVENTS_PER_POLL


def find_polling_loops(node: Any) -> Iterator[list[str]]:
    """Yield the types of the states of each polling loop, starting with its Wait state."""
    if isinstance(node, list):
        for each in node:
            yield from find_polling_loops(each)
    elif isinstance(node, dict):
        states = node.get("States", {})
        for name, state in states.items():
            if state["Type"] == "Wait":
                kinds, current = ["Wait"], state["Next"]
                while states[current]["Type"] != "Choice":
                    kinds.append(states[current]["Type"])
                    current = states[current]["Next"]
                targets = [states[current]["Default"], *(each["Next"] for each in states[current]["Choices"])]
                assert name in targets, f"{name} is not part of a loop"
                yield [*kinds, "Choice"]
        for each in node.values():
            yield from find_polling_loops(each)


@pytest.mark.parametrize("name", ["Prod", "a", "a-stack-with-a-long-name", "dev_1", "1st"])
def test_a_stack_name_that_is_invalid_for_buckets_is_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="bucket names"):
        validate_stack_name(name)
