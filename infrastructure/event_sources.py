"""What calls the functions: queues, rules, schedules, rotation and topics, as the manifests say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.function_manifest import Manifest
from infrastructure.lambda_function import LambdaFunction
from infrastructure.messaging import Queue, Topic
from infrastructure.naming import Names
from infrastructure.resource_references import ResourceReferences
from infrastructure.secrets import Credentials

Functions = Mapping[str, LambdaFunction]
RETRIES, EVENT_AGE_S = 20, 3600


class Triggers(pulumi.ComponentResource):
    """Ways into the functions."""

    def __init__(
        self,
        name: str,
        names: Names,
        manifest: Manifest,
        functions: Functions,
        queues: Mapping[str, Queue],
        references: ResourceReferences,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gorggle:triggers:Triggers", name, None, opts)
        self._name, self._names, self._references = name, names, references
        self._functions, self._queues = functions, queues
        self._child = pulumi.ResourceOptions(parent=self)
        for function in manifest.called_by("queue"):
            self._read_queue(functions[function.name])
        for role, rule in manifest.rules.items():
            pattern = pulumi.Output.json_dumps(self._resolved(rule["pattern"]))
            self._rule(role, rule, event_pattern=pattern)
        for role, schedule in manifest.schedules.items():
            self._rule(role, schedule, schedule_expression=schedule["rate"])
        for queue in queues.values():
            queue.write_policy()
        self.register_outputs({})

    def _read_queue(self, function: LambdaFunction) -> None:
        trigger = function.manifest.trigger
        queue = self._queues[trigger["queue"].removeprefix("queue:")]
        reports = ["ReportBatchItemFailures"] if trigger.get("report_batch_item_failures") else None
        aws.lambda_.EventSourceMapping(
            f"{self._name}-{function.manifest.name}-queue",
            event_source_arn=queue.arn,
            function_name=function.arn,
            batch_size=trigger["batch"],
            function_response_types=reports,
            scaling_config={"maximum_concurrency": trigger["max_concurrency"]},
            opts=self._child,
        )

    def _rule(self, role: str, shape: Mapping[str, Any], **when: pulumi.Input[str]) -> None:
        rule = aws.cloudwatch.EventRule(
            f"{self._name}-{role}-rule",
            name=f"{self._names.prefix}-{role}",
            state="ENABLED",
            opts=self._child,
            **when,
        )
        dead_letters = self._queues[shape["dead_letters"].removeprefix("queue:")]
        dead_letters.accept_from(rule.arn)
        aws.cloudwatch.EventTarget(
            f"{self._name}-{role}-target",
            rule=rule.name,
            target_id=role,
            arn=self._target(role, shape["target"], rule),
            dead_letter_config={"arn": dead_letters.arn},
            retry_policy={"maximum_retry_attempts": RETRIES, "maximum_event_age_in_seconds": EVENT_AGE_S},
            opts=self._child,
        )

    def _target(self, role: str, target: str, rule: aws.cloudwatch.EventRule) -> pulumi.Input[str]:
        kind, _, name = target.partition(":")
        if kind == "function":
            self._functions[name].permit(role, "events.amazonaws.com", rule.arn)
            arn: pulumi.Output[str] = self._functions[name].arn
            return arn
        self._queues[name].accept_from(rule.arn)
        queue: pulumi.Output[str] = self._queues[name].arn
        return queue

    def _resolved(self, pattern: Any) -> Any:
        match pattern:
            case dict():
                return {key: self._resolved(value) for key, value in pattern.items()}
            case list():
                return [self._resolved(each) for each in pattern]
            case str():
                return self._references.value(pattern)
        return pattern


def add_operations(
    manifest: Manifest,
    functions: Functions,
    credentials: Credentials,
    topics: Mapping[str, Topic],
    opts: pulumi.ResourceOptions,
) -> None:
    """Connect the functions that operate the stack to what calls them."""
    for function in manifest.called_by("rotation"):
        for role in function.trigger["secrets"]:
            _rotate(functions[function.name], role, credentials, opts)
    for function in manifest.called_by("topic"):
        topic = topics[function.trigger["topic"]]
        functions[function.name].permit("topic", "sns.amazonaws.com", topic.arn)
        topic.subscribe(function.name, "lambda", functions[function.name].arn)


def _rotate(
    function: LambdaFunction, role: str, credentials: Credentials, opts: pulumi.ResourceOptions
) -> None:
    secret = credentials.secrets[role]
    permission = function.permit(role, "secretsmanager.amazonaws.com", secret.arn)
    days = function.manifest.trigger["every_days"]
    aws.secretsmanager.SecretRotation(
        f"{role}-rotation",
        secret_id=secret.id,
        rotation_lambda_arn=function.arn,
        rotate_immediately=True,
        rotation_rules={"automatically_after_days": days},
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[permission])),
    )
