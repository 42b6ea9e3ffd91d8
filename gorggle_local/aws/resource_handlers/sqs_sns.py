"""Queues and topics."""

from __future__ import annotations

from gorggle_local.aws.pulumi_engine import Resource
from gorggle_local.aws.resource_handlers.registry import Inputs, Making, call, makes, only, tag_list, taken


@makes("sqs/queue:Queue")
def queue(resource: Resource, inputs: Inputs) -> Making:
    name, tags = taken(inputs, "name", "tags")
    words = {
        "visibilityTimeoutSeconds": "VisibilityTimeout",
        "messageRetentionSeconds": "MessageRetentionPeriod",
        "redrivePolicy": "RedrivePolicy",
        "sqsManagedSseEnabled": "SqsManagedSseEnabled",
    }
    only(inputs, *words)
    attributes = {words[key]: _text(value) for key, value in inputs.items()}
    made = yield call("sqs.CreateQueue", QueueName=name, Attributes=attributes, tags=tags)
    url = made["QueueUrl"]
    return url, {"url": url, "arn": f"arn:aws:sqs:us-east-1:123456789012:{name}"}


@makes("sqs/queuePolicy:QueuePolicy")
def queue_policy(resource: Resource, inputs: Inputs) -> Making:
    url, policy = taken(inputs, "queueUrl", "policy")
    only(inputs, "tags")
    yield call("sqs.SetQueueAttributes", QueueUrl=url, Attributes={"Policy": policy})
    return url, {}


@makes("sns/topic:Topic")
def topic(resource: Resource, inputs: Inputs) -> Making:
    name, key, tags = taken(inputs, "name", "kmsMasterKeyId", "tags")
    only(inputs)
    made = yield call("sns.CreateTopic", Name=name, Attributes={"KmsMasterKeyId": key}, Tags=tag_list(tags))
    return made["TopicArn"], {"arn": made["TopicArn"]}


@makes("sns/topicPolicy:TopicPolicy")
def topic_policy(resource: Resource, inputs: Inputs) -> Making:
    arn, policy = taken(inputs, "arn", "policy")
    only(inputs, "tags")
    yield call("sns.SetTopicAttributes", TopicArn=arn, AttributeName="Policy", AttributeValue=policy)
    return arn, {}


@makes("sns/topicSubscription:TopicSubscription")
def subscription(resource: Resource, inputs: Inputs) -> Making:
    arn, protocol, endpoint = taken(inputs, "topic", "protocol", "endpoint")
    only(inputs, "tags")
    made = yield call(
        "sns.Subscribe", TopicArn=arn, Protocol=protocol, Endpoint=endpoint, ReturnSubscriptionArn=True
    )
    return made["SubscriptionArn"], {"arn": made["SubscriptionArn"]}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
