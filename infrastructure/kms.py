"""The KMS key of buckets, tables, topics and logs."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.iam import POLICY_VERSION, source_account_condition
from infrastructure.naming import Names

# Services that publish to the stack's topics and therefore use the key. CloudWatch alarms cannot publish to a topic with the
# AWS managed key: its policy does not allow them.
PUBLISHERS = ("cloudwatch.amazonaws.com", "budgets.amazonaws.com", "events.amazonaws.com")


class Encryption(pulumi.ComponentResource):
    """Customer-managed key with yearly rotation."""

    def __init__(self, name: str, names: Names, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("gorggle:encryption:Encryption", name, None, opts)
        self.key = aws.kms.Key(
            f"{name}-key",
            description=f"{names.prefix}: buckets, table, topics, logs",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            policy=json.dumps(build_key_policy(names)),
            opts=pulumi.ResourceOptions(parent=self),
        )
        aws.kms.Alias(
            f"{name}-alias",
            name=f"alias/{names.prefix}",
            target_key_id=self.key.key_id,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.key_arn = self.key.arn
        self.register_outputs({"key_arn": self.key_arn})


def build_key_policy(names: Names) -> dict[str, Any]:
    """Return the key policy. Its resource ``*`` is the key itself."""
    logs = names.arn("logs", "*")
    return {
        "Version": POLICY_VERSION,
        "Statement": [
            {
                "Sid": "AccountGrantsByItsOwnPolicies",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{names.partition}:iam::{names.account}:root"},
                "Action": "kms:*",
                "Resource": "*",
            },
            {
                "Sid": "LogsOfThisAccount",
                "Effect": "Allow",
                "Principal": {"Service": f"logs.{names.region}.amazonaws.com"},
                "Action": [
                    "kms:Encrypt",
                    "kms:Decrypt",
                    "kms:ReEncrypt*",
                    "kms:GenerateDataKey*",
                    "kms:DescribeKey",
                ],
                "Resource": "*",
                "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": logs}},
            },
            {
                "Sid": "AlarmsBudgetsAndEvents",
                "Effect": "Allow",
                "Principal": {"Service": list(PUBLISHERS)},
                "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
                "Resource": "*",
                "Condition": source_account_condition(names.account),
            },
        ],
    }
