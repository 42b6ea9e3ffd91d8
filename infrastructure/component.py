"""Base class of the stack's components."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infrastructure.config import StackSettings
from infrastructure.naming import Names


@dataclass(frozen=True)
class StackContext:
    """Names, settings and KMS key of the stack, and the options of its components."""

    names: Names
    settings: StackSettings
    key_arn: pulumi.Output[str]
    opts: pulumi.ResourceOptions


class Component(pulumi.ComponentResource):
    """A group of resources; its name is the prefix of theirs."""

    def __init__(
        self, kind: str, name: str, context: StackContext, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(f"gorggle:{kind}", name, None, opts or context.opts)
        self._name, self._context = name, context
        self._names, self._settings = context.names, context.settings
        self._child = pulumi.ResourceOptions(parent=self)

    def _create_log_group(self, role: str, name: str) -> aws.cloudwatch.LogGroup:
        return aws.cloudwatch.LogGroup(
            f"{self._name}-{role}",
            name=name,
            retention_in_days=self._settings.log_retention_days,
            kms_key_id=self._context.key_arn,
            opts=self._child,
        )
