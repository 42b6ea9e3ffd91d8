"""IAM policies and roles. Every statement for all resources needs a reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

POLICY_VERSION = "2012-10-17"
Text = pulumi.Input[str]


@dataclass(frozen=True)
class Grant:
    """A statement of a policy; resources are ARNs."""

    actions: Sequence[str]
    resources: Sequence[Text]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    effect: str = "Allow"

    def __post_init__(self) -> None:
        if "*" in self.resources and self.effect == "Allow" and not self.reason:
            raise ValueError(f"{list(self.actions)} on every resource needs a reason")

    def to_statement(self) -> dict[str, Any]:
        """Return the statement in IAM's JSON format."""
        body: dict[str, Any] = {
            "Effect": self.effect,
            "Action": sorted(self.actions),
            "Resource": list(self.resources),
        }
        return {**body, "Condition": dict(self.conditions)} if self.conditions else body


def build_policy(grants: Iterable[Grant]) -> pulumi.Output[str]:
    """Return a policy document."""
    return pulumi.Output.json_dumps(
        {"Version": POLICY_VERSION, "Statement": [each.to_statement() for each in grants]}
    )


def build_trust_policy(service: str, conditions: Mapping[str, Any] | None = None) -> str:
    """Return the policy that lets an AWS service assume a role."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if conditions:
        statement["Condition"] = dict(conditions)
    return json.dumps({"Version": POLICY_VERSION, "Statement": [statement]})


def source_account_condition(account: str) -> dict[str, Any]:
    """Return the condition that a service acts for this account (prevents confused deputies)."""
    return {"StringEquals": {"aws:SourceAccount": account}}


def deny_plain_http(action: str, resources: str | list[str]) -> dict[str, Any]:
    """Return the statement of a resource's policy that requires TLS."""
    return {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": resources,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


class ServiceRole(pulumi.ComponentResource):
    """A role with one inline policy."""

    def __init__(
        self,
        name: str,
        service: str,
        grants: Sequence[Grant],
        *,
        conditions: Mapping[str, Any] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gorggle:policy:ServiceRole", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.role = aws.iam.Role(
            f"{name}-role",
            name=f"{name}-role",
            assume_role_policy=build_trust_policy(service, conditions),
            opts=child,
        )
        self.policy = aws.iam.RolePolicy(
            f"{name}-policy",
            name="own",
            role=self.role.name,
            policy=build_policy(grants),
            opts=child,
        )
        self.arn = self.role.arn
        self.register_outputs({"arn": self.arn})


XRAY_GRANT = Grant(
    actions=("xray:PutTraceSegments", "xray:PutTelemetryRecords"),
    resources=("*",),
    reason="these actions support no resources",
)
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
VPC_ACCESS_GRANT = Grant(
    actions=(
        "ec2:CreateNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:DeleteNetworkInterface",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
    ),
    resources=("*",),
    reason="Lambda requires these on all resources to connect a function to a VPC",
)


def log_write_grant(log_group_arn: Text) -> Grant:
    """Return the grant to write to a log group."""
    return Grant(
        actions=("logs:CreateLogStream", "logs:PutLogEvents"),
        resources=[pulumi.Output.concat(log_group_arn, ":*")],
    )
