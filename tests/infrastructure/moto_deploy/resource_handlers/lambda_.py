"""Functions, layers, permissions, event targets, and the state machine."""

from __future__ import annotations

from tests.infrastructure.moto_deploy.provider_outputs import REGION
from tests.infrastructure.moto_deploy.pulumi_engine import Resource
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
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
    result = yield convert_call(
        "lambda.PublishLayerVersion", inputs, Content={"S3Bucket": bucket, "S3Key": key}
    )
    arn = result["LayerVersionArn"]
    return arn, {"arn": arn, "layerArn": result["LayerArn"], "version": str(result["Version"])}


@handles("lambda/function:Function")
def function(resource: Resource, inputs: Inputs) -> CallGenerator:
    bucket, key, _hash, tags = pop_inputs(inputs, "s3Bucket", "s3Key", "sourceCodeHash", "tags")
    result = yield convert_call(
        "lambda.CreateFunction",
        inputs,
        {"name": "functionName"},
        Code={"S3Bucket": bucket, "S3Key": key},
        Tags=tags,
    )
    arn = result["FunctionArn"]
    path = f"2015-03-31/functions/{arn}/invocations"
    return inputs["name"], {"arn": arn, "invokeArn": f"arn:aws:apigateway:{REGION}:lambda:path/{path}"}


@handles("lambda/permission:Permission")
def permission(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call(
        "lambda.AddPermission", inputs, {"function": "functionName"}, StatementId=resource.name
    )
    return resource.name, {}


@handles("sfn/stateMachine:StateMachine")
def state_machine(resource: Resource, inputs: Inputs) -> CallGenerator:
    logging, tags = pop_inputs(inputs, "loggingConfiguration", "tags")
    destination = logging.pop("logDestination")
    logging["destinations"] = [{"cloudWatchLogsLogGroup": {"logGroupArn": destination}}]
    result = yield convert_call(
        "stepfunctions.CreateStateMachine",
        inputs,
        loggingConfiguration=logging,
        tags=tag_list(tags, "key", "value"),
    )
    return result["stateMachineArn"], {"arn": result["stateMachineArn"]}


@handles("cloudwatch/eventTarget:EventTarget")
def target(resource: Resource, inputs: Inputs) -> CallGenerator:
    rule, identity = inputs.pop("rule"), inputs.pop("targetId")
    names = ("arn", "deadLetterConfig", "retryPolicy")
    assert_consumed(inputs, "tags", *names)
    item = {"id": identity, **{name: inputs[name] for name in names}}
    result = yield convert_call("events.PutTargets", {"rule": rule, "targets": [item]})
    if result.get("FailedEntryCount") and "sample" not in str(result):
        raise RuntimeError(f"{resource.name}: {result['FailedEntries']}")
    return f"{rule}-{identity}", {}
