"""Queues and topics."""

from __future__ import annotations

from tests.infrastructure.moto_deploy.pulumi_engine import Resource
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    build_arn,
    call,
    handles,
    pop_inputs,
    tag_list,
)


@handles("sqs/queue:Queue")
def queue(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, tags = pop_inputs(inputs, "name", "tags")
    attributes = {
        "visibilityTimeoutSeconds": "VisibilityTimeout",
        "messageRetentionSeconds": "MessageRetentionPeriod",
        "redrivePolicy": "RedrivePolicy",
        "sqsManagedSseEnabled": "SqsManagedSseEnabled",
    }
    assert_consumed(inputs, *attributes)
    values = {attributes[key]: _to_attribute(value) for key, value in inputs.items()}
    result = yield call("sqs.CreateQueue", QueueName=name, Attributes=values, tags=tags)
    return result["QueueUrl"], {"url": result["QueueUrl"], "arn": build_arn("sqs", name)}


def _to_attribute(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@handles("sqs/queuePolicy:QueuePolicy")
def queue_policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    url, policy = pop_inputs(inputs, "queueUrl", "policy")
    assert_consumed(inputs, "tags")
    yield call("sqs.SetQueueAttributes", QueueUrl=url, Attributes={"Policy": policy})
    return url, {}


@handles("sns/topic:Topic")
def topic(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, key, tags = pop_inputs(inputs, "name", "kmsMasterKeyId", "tags")
    assert_consumed(inputs)
    result = yield call("sns.CreateTopic", Name=name, Attributes={"KmsMasterKeyId": key}, Tags=tag_list(tags))
    return result["TopicArn"], {"arn": result["TopicArn"]}


@handles("sns/topicPolicy:TopicPolicy")
def topic_policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    arn, policy = pop_inputs(inputs, "arn", "policy")
    assert_consumed(inputs, "tags")
    yield call("sns.SetTopicAttributes", TopicArn=arn, AttributeName="Policy", AttributeValue=policy)
    return arn, {}
