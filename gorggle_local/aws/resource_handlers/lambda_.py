"""Functions, layers, what calls them, and the state machine."""

from __future__ import annotations

from gorggle_local.aws.pulumi_engine import Resource
from gorggle_local.aws.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    convert_call,
    handles,
    pop_inputs,
    tag_list,
)


@handles("lambda/layerVersion:LayerVersion")
def layer(resource: Resource, inputs: Inputs) -> CallGenerator:
    bucket, key, _hash, _tags = pop_inputs(inputs, "s3Bucket", "s3Key", "sourceCodeHash", "tags")
    made = yield convert_call(
        "lambda.PublishLayerVersion", inputs, Content={"S3Bucket": bucket, "S3Key": key}
    )
    arn = made["LayerVersionArn"]
    return arn, {"arn": arn, "layerArn": made["LayerArn"], "version": str(made["Version"])}


@handles("lambda/function:Function")
def function(resource: Resource, inputs: Inputs) -> CallGenerator:
    bucket, key, _hash, tags = pop_inputs(inputs, "s3Bucket", "s3Key", "sourceCodeHash", "tags")
    made = yield convert_call(
        "lambda.CreateFunction",
        inputs,
        {"name": "functionName"},
        Code={"S3Bucket": bucket, "S3Key": key},
        Tags=tags,
    )
    arn = made["FunctionArn"]
    path = f"2015-03-31/functions/{arn}/invocations"
    return inputs["name"], {"arn": arn, "invokeArn": f"arn:aws:apigateway:us-east-1:lambda:path/{path}"}


@handles("lambda/permission:Permission")
def permission(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call(
        "lambda.AddPermission", inputs, {"function": "functionName"}, StatementId=resource.name
    )
    return resource.name, {}


@handles("lambda/functionEventInvokeConfig:FunctionEventInvokeConfig")
def event_config(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call("lambda.PutFunctionEventInvokeConfig", inputs)
    return inputs["functionName"], {}


@handles("lambda/eventSourceMapping:EventSourceMapping")
def event_source(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    made = yield convert_call("lambda.CreateEventSourceMapping", inputs, Tags=tags)
    return made["UUID"], {"uuid": made["UUID"]}


@handles("sfn/stateMachine:StateMachine")
def state_machine(resource: Resource, inputs: Inputs) -> CallGenerator:
    logging, tags = pop_inputs(inputs, "loggingConfiguration", "tags")
    wanted = {
        "level": logging["level"],
        "includeExecutionData": logging["includeExecutionData"],
        "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": logging["logDestination"]}}],
    }
    made = yield convert_call(
        "stepfunctions.CreateStateMachine",
        inputs,
        loggingConfiguration=wanted,
        tags=tag_list(tags, "key", "value"),
    )
    return made["stateMachineArn"], {"arn": made["stateMachineArn"]}


@handles("cloudwatch/eventRule:EventRule")
def rule(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    made = yield convert_call("events.PutRule", inputs, Tags=tag_list(tags))
    return inputs["name"], {"arn": made["RuleArn"]}


@handles("cloudwatch/eventTarget:EventTarget")
def target(resource: Resource, inputs: Inputs) -> CallGenerator:
    rule_name, identity, arn, letters, retry = pop_inputs(
        inputs, "rule", "targetId", "arn", "deadLetterConfig", "retryPolicy"
    )
    assert_consumed(inputs, "tags")
    wanted = {"id": identity, "arn": arn, "deadLetterConfig": letters, "retryPolicy": retry}
    answer = yield convert_call("events.PutTargets", {"rule": rule_name, "targets": [wanted]})
    if answer.get("FailedEntryCount") and "sample" not in str(answer):
        raise RuntimeError(f"{resource.name}: {answer['FailedEntries']}")
    return f"{rule_name}-{identity}", {}
