"""Resolves the references of the manifests: ``table:jobs``, ``bucket:results/jobs/*``, ``setting:max_concurrent_jobs``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infrastructure import cost_estimate
from infrastructure.config import StackSettings
from infrastructure.function_manifest import FunctionSpec, Statement
from infrastructure.iam import Grant
from infrastructure.naming import Names

Text = pulumi.Input[str]
# The name in the server's certificate; clients verify it instead of the load balancer's host name.
SERVER_NAME = "server.gorggle.internal"


@dataclass
class ResourceReferences:
    """Resources by their references in the manifests.

    ``arns`` (for policies) and ``values`` (for environment variables) are filled while the stack is created. An unknown
    reference raises ``KeyError``.
    """

    names: Names
    settings: StackSettings
    key_arn: Text
    arns: dict[str, Text] = field(default_factory=dict)
    values: dict[str, Text] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Added before they are created, because references between them are cyclic.
        self.add("fleet", self.names.fleet_arn, self.names.fleet)
        self.add("state_machine", self.names.state_machine_arn, self.names.state_machine_arn)
        self.add("key:data", self.key_arn, self.key_arn)
        self.values["server:name"] = SERVER_NAME
        self.values["metrics:namespace"] = self.names.metrics_namespace

    def add(self, reference: str, arn: Text, value: Text) -> None:
        """Add a resource."""
        self.arns[reference], self.values[reference] = arn, value

    def resolve(self, text: str) -> Text:
        """Return the value of a reference for environment variables; other text is returned unchanged."""
        kind, _, name = text.partition(":")
        if text == "setting:prices":
            return cost_estimate.prices_json(self.settings)
        if kind == "setting":
            return _to_env_value(getattr(self.settings, name))
        if text in self.values:
            return self.values[text]
        if kind in ("table", "bucket", "queue", "secret", "topic", "server", "function", "index", "metrics"):
            raise KeyError(f"{text!r} is referenced, but the stack has no such resource")
        return text

    def get_setting(self, text: str) -> Any:
        """Return the value of ``setting:NAME``, with its type."""
        return getattr(self.settings, text.removeprefix("setting:"))

    def resolve_arns(self, reference: str) -> list[Text]:
        """Return the ARNs of a reference for policies."""
        machine = self.names.state_machine
        match reference.split(":", 1):
            case ["*"]:
                return ["*"]
            case ["executions"]:
                return [self.names.arn("states", f"execution:{machine}:*")]
            case ["map_runs"]:
                # Names of a distributed map's child executions and runs contain its label.
                return [self.names.arn("states", f"{kind}:{machine}/*:*") for kind in ("execution", "mapRun")]
            case ["index", name]:
                table, _, index = name.partition("/")
                return [pulumi.Output.concat(self.arns[f"table:{table}"], "/index/", index)]
            case ["bucket", name] if "/" in name:
                bucket, _, keys = name.partition("/")
                return [pulumi.Output.concat(self.arns[f"bucket:{bucket}"], "/", keys)]
        if reference not in self.arns:
            raise KeyError(f"{reference!r} is referenced, but the stack has no such resource")
        return [self.arns[reference]]

    def to_grants(self, statements: Iterable[Statement]) -> list[Grant]:
        """Return statements with ARNs instead of references."""
        return [
            Grant(
                one.actions,
                [arn for each in one.resources for arn in self.resolve_arns(each)],
                reason=one.reason,
            )
            for one in statements
        ]

    def resolve_environment(self, function: FunctionSpec) -> Mapping[str, Text]:
        """Return a function's environment variables."""
        return {name: self.resolve(text) for name, text in function.environment.items()}


def _to_env_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
