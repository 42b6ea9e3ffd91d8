"""SQS queues and SNS topics with their policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.iam import POLICY_VERSION
from infrastructure.naming import Names

DAY_S = 24 * 3600


class Queue(pulumi.ComponentResource):
    """A queue, optionally with a dead-letter queue. Call ``create_policy`` after all ``allow_rule``."""

    def __init__(
        self,
        name: str,
        queue_name: str,
        spec: Mapping[str, Any],
        dead_letter_queue_arn: pulumi.Output[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gorggle:messaging:Queue", name, None, opts)
        self._name = name
        redrive = None
        if dead_letter_queue_arn is not None:
            redrive = pulumi.Output.json_dumps(
                {"deadLetterTargetArn": dead_letter_queue_arn, "maxReceiveCount": spec["dead_letters_after"]}
            )
        self.queue = aws.sqs.Queue(
            f"{name}-queue",
            name=queue_name,
            visibility_timeout_seconds=spec.get("visibility_s"),
            message_retention_seconds=spec.get("retention_days", 4) * DAY_S,
            redrive_policy=redrive,
            sqs_managed_sse_enabled=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.arn, self.url, self.name = self.queue.arn, self.queue.url, self.queue.name
        self._rule_arns: list[pulumi.Input[str]] = []
        self.register_outputs({"url": self.url})

    def allow_rule(self, rule_arn: pulumi.Input[str]) -> None:
        """Allow an EventBridge rule to send messages."""
        self._rule_arns.append(rule_arn)

    def create_policy(self) -> None:
        """Create the queue's policy: TLS only, and the rules that may send."""
        aws.sqs.QueuePolicy(
            f"{self._name}-policy",
            queue_url=self.url,
            policy=pulumi.Output.all(self.arn, self._rule_arns).apply(
                lambda args: json.dumps(build_queue_policy(*args))
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )


def build_queue_policy(arn: str, rule_arns: list[str]) -> dict[str, Any]:
    """Return a policy that requires TLS and allows EventBridge rules to send."""
    statements: list[dict[str, Any]] = [_deny_plain_http("sqs:*", arn)]
    if rule_arns:
        statements.append(
            {
                "Sid": "Rules",
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule_arns}},
            }
        )
    return {"Version": POLICY_VERSION, "Statement": statements}


class Topic(pulumi.ComponentResource):
    """A topic, encrypted with the stack's key."""

    def __init__(
        self,
        name: str,
        names: Names,
        role: str,
        key_arn: pulumi.Input[str],
        publishers: tuple[str, ...] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """``publishers``: AWS services that may publish on behalf of this account."""
        super().__init__("gorggle:messaging:Topic", name, None, opts)
        self._name = name
        self.topic = aws.sns.Topic(
            f"{name}-topic",
            name=names.topic(role),
            kms_master_key_id=key_arn,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.arn = self.topic.arn
        self.policy = aws.sns.TopicPolicy(
            f"{name}-policy",
            arn=self.arn,
            policy=self.arn.apply(lambda arn: json.dumps(build_topic_policy(arn, names.account, publishers))),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"arn": self.arn})

    def subscribe(self, role: str, protocol: str, endpoint: pulumi.Input[str]) -> None:
        """Subscribe an endpoint."""
        aws.sns.TopicSubscription(
            f"{self._name}-{role}",
            topic=self.arn,
            protocol=protocol,
            endpoint=endpoint,
            opts=pulumi.ResourceOptions(parent=self),
        )


def build_topic_policy(arn: str, account: str, publishers: tuple[str, ...]) -> dict[str, Any]:
    """Return a policy that requires TLS and allows AWS services to publish for this account."""
    statements: list[dict[str, Any]] = [_deny_plain_http("sns:Publish", arn)]
    if publishers:
        statements.append(
            {
                "Sid": "Services",
                "Effect": "Allow",
                "Principal": {"Service": list(publishers)},
                "Action": "sns:Publish",
                "Resource": arn,
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            }
        )
    return {"Version": POLICY_VERSION, "Statement": statements}


def _deny_plain_http(action: str, arn: str) -> dict[str, Any]:
    return {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": arn,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
