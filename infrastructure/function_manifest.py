"""Parses ``functions.toml``: the Lambda functions, their permissions and triggers. Independent of Pulumi."""

from __future__ import annotations

import tomllib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

TRIGGER_KINDS = {
    "authorizer": {"identity", "payload", "simple", "ttl_s"},
    "route": {"route", "authorized"},
    "queue": {"queue", "batch", "report_batch_item_failures", "max_concurrency"},
    "events": {"rules", "schedules"},
    "state_machine": set(),
    "rotation": {"secrets", "every_days"},
    "topic": {"topic"},
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Statement(_Model):
    """A policy statement; resources are references of the manifest, such as ``table:jobs``."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    reason: str = ""

    @model_validator(mode="after")
    def _require_reason(self) -> Self:
        if "*" in self.resources and not self.reason:
            raise ValueError(f"{self.actions} are allowed on all resources without a reason")
        return self


class FunctionSpec(_Model):
    """A Lambda function.

    Limits: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    """

    name: str
    description: str
    handler: str
    trigger: Mapping[str, Any]
    memory_mib: int = Field(alias="memory_mb", ge=128, le=10_240)
    timeout_s: int = Field(ge=1, le=900)
    ephemeral_mib: int = Field(alias="ephemeral_mb", ge=512, le=10_240)
    in_vpc: bool
    layers: tuple[str, ...]
    environment: Mapping[str, str]
    statements: tuple[Statement, ...]

    @field_validator("trigger")
    @classmethod
    def _validate_trigger(cls, trigger: Mapping[str, Any]) -> Mapping[str, Any]:
        known = TRIGGER_KINDS.get(trigger.get("kind", ""))
        if known is None or not set(trigger) - {"kind"} <= known:
            raise ValueError(f"invalid trigger: {trigger}")
        return trigger

    @property
    def is_asynchronous(self) -> bool:
        """Whether it is invoked asynchronously, so that Lambda retries and then drops the event."""
        return self.trigger["kind"] in ("events", "topic")


class StateMachineSpec(_Model):
    """The pipeline's state machine."""

    type: str
    calls: tuple[str, ...]
    parameters: Mapping[str, str]
    statements: tuple[Statement, ...]


class Manifest(_Model):
    """The functions and the resources that they use."""

    functions: Mapping[str, FunctionSpec]
    state_machine: StateMachineSpec | None = None
    settings: Mapping[str, Mapping[str, Any]] = {}
    tables: Mapping[str, Mapping[str, Any]] = {}
    buckets: Mapping[str, Mapping[str, Any]] = {}
    queues: Mapping[str, Mapping[str, Any]] = {}
    rules: Mapping[str, Mapping[str, Any]] = {}
    schedules: Mapping[str, Mapping[str, Any]] = {}
    secrets: Mapping[str, Mapping[str, Any]] = {}
    topics: Mapping[str, Mapping[str, Any]] = {}

    def triggered_by(self, kind: str) -> Iterator[FunctionSpec]:
        """Return the functions with one kind of trigger."""
        return (function for function in self.functions.values() if function.trigger["kind"] == kind)

    def without(self, names: Container[str]) -> Manifest:
        """Return a copy without the named functions and secrets."""
        kept = {
            section: {name: each for name, each in getattr(self, section).items() if name not in names}
            for section in ("functions", "secrets")
        }
        return self.model_copy(update=kept)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ValueError: it has an unknown key or an invalid value.
    """
    document = tomllib.loads(path.read_text())
    defaults = document.pop("defaults", {})
    for ignored in ("runtime", "api"):  # defined by the stack's settings and the API documentation
        document.pop(ignored, None)
    for name, body in document["functions"].items():
        environment = {**defaults.get("environment", {}), **body.get("environment", {})}
        document["functions"][name] = {**defaults, **body, "name": name, "environment": environment}
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise ValueError(f"{path} is invalid: {error}") from error
