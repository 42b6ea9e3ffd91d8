"""Event sources of the functions: queues, rules, schedules, secret rotation and topics, from the manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.function_manifest import Manifest
from infrastructure.lambda_function import LambdaFunction
from infrastructure.messaging import Queue, Topic
from infrastructure.resource_references import ResourceReferences
from infrastructure.secrets import Credentials

Functions = Mapping[str, LambdaFunction]
MAX_RETRIES, MAX_EVENT_AGE_S = 20, 3600


class Triggers(Component):
    """Event source mappings, EventBridge rules and schedules."""

    def __init__(
        self,
        name: str,
        context: StackContext,
        manifest: Manifest,
        functions: Functions,
        queues: Mapping[str, Queue],
        references: ResourceReferences,
    ) -> None:
        super().__init__("triggers:Triggers", name, context)
        self._functions, self._queues, self._references = functions, queues, references
        for function in manifest.triggered_by("queue"):
            self._add_queue_trigger(functions[function.name])
        for role, rule in manifest.rules.items():
            pattern = pulumi.Output.json_dumps(self._resolve_pattern(rule["pattern"]))
            self._add_rule(role, rule, event_pattern=pattern)
        for role, schedule in manifest.schedules.items():
            self._add_rule(role, schedule, schedule_expression=schedule["rate"])
        for queue in queues.values():
            queue.create_policy()
        self.register_outputs({})

    def _add_queue_trigger(self, function: LambdaFunction) -> None:
        trigger = function.spec.trigger
        queue = self._queues[trigger["queue"].removeprefix("queue:")]
        reports = ["ReportBatchItemFailures"] if trigger.get("report_batch_item_failures") else None
        aws.lambda_.EventSourceMapping(
            f"{self._name}-{function.spec.name}-queue",
            event_source_arn=queue.arn,
            function_name=function.arn,
            batch_size=trigger["batch"],
            function_response_types=reports,
            scaling_config={"maximum_concurrency": trigger["max_concurrency"]},
            opts=self._child,
        )

    def _add_rule(self, role: str, spec: Mapping[str, Any], **condition: pulumi.Input[str]) -> None:
        rule = aws.cloudwatch.EventRule(
            f"{self._name}-{role}-rule",
            name=self._names.resource(role),
            state="ENABLED",
            opts=self._child,
            **condition,
        )
        dead_letters = self._queues[spec["dead_letters"].removeprefix("queue:")]
        dead_letters.allow_rule(rule.arn)
        aws.cloudwatch.EventTarget(
            f"{self._name}-{role}-target",
            rule=rule.name,
            target_id=role,
            arn=self._resolve_target(role, spec["target"], rule),
            dead_letter_config={"arn": dead_letters.arn},
            retry_policy={
                "maximum_retry_attempts": MAX_RETRIES,
                "maximum_event_age_in_seconds": MAX_EVENT_AGE_S,
            },
            opts=self._child,
        )

    def _resolve_target(self, role: str, target: str, rule: aws.cloudwatch.EventRule) -> pulumi.Input[str]:
        kind, _, name = target.partition(":")
        if kind == "function":
            self._functions[name].allow_invocation(role, "events.amazonaws.com", rule.arn)
            arn: pulumi.Output[str] = self._functions[name].arn
            return arn
        self._queues[name].allow_rule(rule.arn)
        queue: pulumi.Output[str] = self._queues[name].arn
        return queue

    def _resolve_pattern(self, pattern: Any) -> Any:
        match pattern:
            case dict():
                return {key: self._resolve_pattern(value) for key, value in pattern.items()}
            case list():
                return [self._resolve_pattern(each) for each in pattern]
            case str():
                return self._references.resolve(pattern)
        return pattern


def add_operations_triggers(
    manifest: Manifest,
    functions: Functions,
    credentials: Credentials,
    topics: Mapping[str, Topic],
    opts: pulumi.ResourceOptions,
) -> None:
    """Add secret rotation and topic subscriptions of the operations functions."""
    for function in manifest.triggered_by("rotation"):
        for role in function.trigger["secrets"]:
            _add_rotation(functions[function.name], role, credentials, opts)
    for function in manifest.triggered_by("topic"):
        topic = topics[function.trigger["topic"]]
        functions[function.name].allow_invocation("topic", "sns.amazonaws.com", topic.arn)
        topic.subscribe(function.name, "lambda", functions[function.name].arn)


def _add_rotation(
    function: LambdaFunction, role: str, credentials: Credentials, opts: pulumi.ResourceOptions
) -> None:
    secret = credentials.secrets[role]
    permission = function.allow_invocation(role, "secretsmanager.amazonaws.com", secret.arn)
    days = function.spec.trigger["every_days"]
    aws.secretsmanager.SecretRotation(
        f"{role}-rotation",
        secret_id=secret.id,
        rotation_lambda_arn=function.arn,
        rotate_immediately=True,
        rotation_rules={"automatically_after_days": days},
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[permission])),
    )
