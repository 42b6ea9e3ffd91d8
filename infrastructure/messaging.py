"""SQS queues and SNS topics with their policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.iam import POLICY_VERSION, deny_plain_http, source_account_condition

DAY_S = 24 * 3600


class Queue(Component):
    """A queue, optionally with a dead-letter queue. Call ``create_policy`` after all ``allow_rule``."""

    def __init__(
        self,
        name: str,
        context: StackContext,
        role: str,
        spec: Mapping[str, Any],
        dead_letter_queue_arn: pulumi.Output[str] | None = None,
    ) -> None:
        super().__init__("messaging:Queue", name, context)
        redrive = None
        if dead_letter_queue_arn is not None:
            redrive = pulumi.Output.json_dumps(
                {"deadLetterTargetArn": dead_letter_queue_arn, "maxReceiveCount": spec["dead_letters_after"]}
            )
        self.queue = aws.sqs.Queue(
            f"{name}-queue",
            name=context.names.resource(role),
            visibility_timeout_seconds=spec.get("visibility_s"),
            message_retention_seconds=spec.get("retention_days", 4) * DAY_S,
            redrive_policy=redrive,
            sqs_managed_sse_enabled=True,
            opts=self._child,
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
            opts=self._child,
        )


def build_queue_policy(arn: str, rule_arns: list[str]) -> dict[str, Any]:
    """Return a policy that requires TLS and allows EventBridge rules to send."""
    statements: list[dict[str, Any]] = [deny_plain_http("sqs:*", arn)]
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


class Topic(Component):
    """A topic, encrypted with the stack's key."""

    def __init__(self, name: str, context: StackContext, role: str, publishers: tuple[str, ...] = ()) -> None:
        """``publishers``: AWS services that may publish on behalf of this account."""
        super().__init__("messaging:Topic", name, context)
        account = context.names.account
        self.topic = aws.sns.Topic(
            f"{name}-topic",
            name=context.names.resource(role),
            kms_master_key_id=context.key_arn,
            opts=self._child,
        )
        self.arn = self.topic.arn
        self.policy = aws.sns.TopicPolicy(
            f"{name}-policy",
            arn=self.arn,
            policy=self.arn.apply(lambda arn: json.dumps(build_topic_policy(arn, account, publishers))),
            opts=self._child,
        )
        self.register_outputs({"arn": self.arn})

    def subscribe(self, role: str, protocol: str, endpoint: pulumi.Input[str]) -> None:
        """Subscribe an endpoint."""
        aws.sns.TopicSubscription(
            f"{self._name}-{role}",
            topic=self.arn,
            protocol=protocol,
            endpoint=endpoint,
            opts=self._child,
        )


def build_topic_policy(arn: str, account: str, publishers: tuple[str, ...]) -> dict[str, Any]:
    """Return a policy that requires TLS and allows AWS services to publish for this account."""
    statements: list[dict[str, Any]] = [deny_plain_http("sns:Publish", arn)]
    if publishers:
        statements.append(
            {
                "Sid": "Services",
                "Effect": "Allow",
                "Principal": {"Service": list(publishers)},
                "Action": "sns:Publish",
                "Resource": arn,
                "Condition": source_account_condition(account),
            }
        )
    return {"Version": POLICY_VERSION, "Statement": statements}
