"""Parses ``functions.toml``: the Lambda functions, their permissions and triggers. Independent of Pulumi."""

from __future__ import annotations

import tomllib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

TRIGGER_KINDS = {
    "authorizer": {"identity", "payload", "simple", "ttl_s"},
    "route": {"route", "authorized"},
    "queue": {"queue", "batch", "report_batch_item_failures", "max_concurrency"},
    "events": {"rules", "schedules"},
    "state_machine": set(),
    "rotation": {"secrets", "every_days"},
    "topic": {"topic"},
}
# Limits of Lambda: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MEMORY_MIB = (128, 10_240)
TIMEOUT_S = (1, 900)
EPHEMERAL_MIB = (512, 10_240)


@dataclass(frozen=True)
class Statement:
    """A policy statement; resources are references of the manifest, such as ``table:jobs``."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    reason: str = ""

    @property
    def has_wildcard(self) -> bool:
        """Whether it applies to all resources."""
        return "*" in self.resources


@dataclass(frozen=True)
class FunctionSpec:
    """A Lambda function."""

    name: str
    description: str
    handler: str
    trigger: Mapping[str, Any]
    memory_mib: int
    timeout_s: int
    ephemeral_mib: int
    in_vpc: bool
    layers: tuple[str, ...]
    environment: Mapping[str, str]
    statements: tuple[Statement, ...]

    @property
    def is_asynchronous(self) -> bool:
        """Whether it is invoked asynchronously, so that Lambda retries and then drops the event."""
        return self.trigger["kind"] in ("events", "topic")


@dataclass(frozen=True)
class StateMachineSpec:
    """The pipeline's state machine."""

    type: str
    calls: tuple[str, ...]
    parameters: Mapping[str, str]
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Manifest:
    """The functions and the resources that they use."""

    functions: Mapping[str, FunctionSpec]
    state_machine: StateMachineSpec | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    buckets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    queues: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schedules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    topics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def triggered_by(self, kind: str) -> Iterator[FunctionSpec]:
        """Return the functions with one kind of trigger."""
        return (function for function in self.functions.values() if function.trigger["kind"] == kind)

    def without(self, names: Container[str]) -> Manifest:
        """Return a copy without the named functions and secrets."""
        return replace(
            self,
            functions={name: each for name, each in self.functions.items() if name not in names},
            secrets={name: each for name, each in self.secrets.items() if name not in names},
        )


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ValueError: it has an unknown key or an invalid value.
    """
    document = tomllib.loads(path.read_text())
    defaults = document.pop("defaults", {})
    for ignored in ("runtime", "api"):  # defined by the stack's settings and the API documentation
        document.pop(ignored, None)
    machine = document.pop("state_machine", None)
    functions = {
        name: _parse_function(name, body, defaults) for name, body in document.pop("functions", {}).items()
    }
    sections = set(Manifest.__dataclass_fields__) - {"functions", "state_machine"}
    if unknown := set(document) - sections:
        raise ValueError(f"{path} has unknown sections: {sorted(unknown)}")
    return Manifest(
        functions=functions, state_machine=_parse_state_machine(machine) if machine else None, **document
    )


def _parse_function(name: str, body: dict[str, Any], defaults: dict[str, Any]) -> FunctionSpec:
    merged = {**defaults, **body}
    environment = {**defaults.get("environment", {}), **body.get("environment", {})}
    trigger = dict(merged["trigger"])
    options = set(trigger) - {"kind"}
    if trigger["kind"] not in TRIGGER_KINDS or not options <= TRIGGER_KINDS[trigger["kind"]]:
        raise ValueError(f"{name} has an invalid trigger: {trigger}")
    function = FunctionSpec(
        name=name,
        description=merged.pop("description"),
        handler=merged.pop("handler"),
        trigger=merged.pop("trigger"),
        memory_mib=merged.pop("memory_mb"),
        timeout_s=merged.pop("timeout_s"),
        ephemeral_mib=merged.pop("ephemeral_mb"),
        in_vpc=merged.pop("in_vpc"),
        layers=tuple(merged.pop("layers")),
        environment=environment,
        statements=tuple(_parse_statement(name, each) for each in merged.pop("statements")),
    )
    if unknown := set(merged) - {"environment"}:
        raise ValueError(f"the function {name} has unknown keys: {sorted(unknown)}")
    _check_range(name, "memory_mb", function.memory_mib, MEMORY_MIB)
    _check_range(name, "timeout_s", function.timeout_s, TIMEOUT_S)
    _check_range(name, "ephemeral_mb", function.ephemeral_mib, EPHEMERAL_MIB)
    return function


def _check_range(function: str, key: str, value: int, limits: tuple[int, int]) -> None:
    if not limits[0] <= value <= limits[1]:
        raise ValueError(f"{function}: {key} is {value}; Lambda allows {limits[0]} to {limits[1]}")


def _parse_statement(owner: str, body: dict[str, Any]) -> Statement:
    statement = Statement(tuple(body["actions"]), tuple(body["resources"]), body.get("reason", ""))
    if unknown := set(body) - {"actions", "resources", "reason", "why"}:
        raise ValueError(f"{owner} has a statement with unknown keys: {sorted(unknown)}")
    if statement.has_wildcard and not statement.reason:
        raise ValueError(f"{owner} allows {statement.actions} on all resources without a reason")
    return statement


def _parse_state_machine(body: dict[str, Any]) -> StateMachineSpec:
    return StateMachineSpec(
        type=body["type"],
        calls=tuple(body["calls"]),
        parameters=body["parameters"],
        statements=tuple(_parse_statement("the state machine", each) for each in body["statements"]),
    )
