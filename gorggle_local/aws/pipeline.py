"""Deploys the pipeline to the local AWS from the functions' manifest, with boto3.

Unlike the Pulumi program, it needs no Pulumi and creates only what the pipeline needs on one machine.
"""

from __future__ import annotations

import functools
import json
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

import gorggle_lambdas
from gorggle_lambdas.state_machine import build_definition
from gorggle_local.aws import lambda_packages
from gorggle_local.aws.emulator import ACCOUNT, REGION

LAMBDAS = Path(gorggle_lambdas.__file__).parent
MANIFEST = LAMBDAS / "functions.toml"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/local"


@dataclass(frozen=True)
class Server:
    """The inference server: address, name in its certificate, and client credentials for mutual TLS (PEM)."""

    address: str
    name: str
    ca: str
    certificate: str
    key: str


@dataclass
class Stack:
    """A deployed pipeline; ``stack["table:jobs"]`` returns the name or ARN of a resource."""

    endpoint_url: str
    name: str
    values: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """Return a client of a service."""
        return _client(self.endpoint_url, service)

    def __getitem__(self, reference: str) -> str:
        """Return the value of a reference of the manifest, such as ``table:jobs``."""
        return str(self.values[reference])


@functools.cache
def _client(endpoint_url: str, service: str) -> Any:
    config: Any = Config(signature_version="s3v4" if service == "s3" else None)
    return boto3.client(
        service,
        endpoint_url=endpoint_url or None,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - not checked by moto
        config=config,
    )


def deploy(
    endpoint_url: str,
    server: Server,
    tokens: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
    name: str = "gorggle",
    layers: Mapping[str, Path] | None = None,
) -> Stack:
    """Deploy a pipeline.

    Args:
        endpoint_url: of the local AWS.
        server: the inference server.
        tokens: SHA-256 hashes of API tokens by owner.
        settings: override the manifest's defaults.
        name: prefix of the resource names.
        layers: paths of built layers by name; None: layers from this environment.
    """
    manifest = tomllib.loads(MANIFEST.read_text("utf-8"))
    stack = Stack(endpoint_url, name)
    values = {key: one["default"] for key, one in manifest["settings"].items()} | dict(settings or {})
    stack.values |= {f"setting:{key}": value for key, value in values.items()}
    stack.values |= {"server:address": server.address, "server:name": server.name}
    stack.values["metrics:namespace"] = f"Gorggle/{name}"
    _create_storage(stack, manifest)
    _create_secrets(stack, server, tokens)
    _create_fleet(stack)
    _create_role(stack)
    stack.values["state_machine"] = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{name}"
    _create_functions(stack, manifest, layers or {})
    _create_state_machine(stack, manifest)
    _create_triggers(stack, manifest)
    return stack


def _create_storage(stack: Stack, manifest: Mapping[str, Any]) -> None:
    s3, sqs = stack.client("s3"), stack.client("sqs")
    for key, bucket in manifest["buckets"].items():
        stack.values[f"bucket:{key}"] = name = f"{stack.name}-{key}"
        s3.create_bucket(Bucket=name)
        if bucket.get("versioned"):
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        if bucket.get("event_bridge"):
            s3.put_bucket_notification_configuration(
                Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
            )
    stack.values["bucket:artifacts"] = f"{stack.name}-artifacts"
    s3.create_bucket(Bucket=stack["bucket:artifacts"])
    for key, queue in sorted(manifest["queues"].items(), key=lambda item: "dead_letters" in item[1]):
        attributes: dict[str, str] = {"VisibilityTimeout": str(queue.get("visibility_s", 30))}
        if "dead_letters" in queue:
            attributes["RedrivePolicy"] = json.dumps(
                {
                    "deadLetterTargetArn": stack[f"queue-arn:{queue['dead_letters']}"],
                    "maxReceiveCount": queue["dead_letters_after"],
                }
            )
        url = sqs.create_queue(QueueName=f"{stack.name}-{key}", Attributes=attributes)["QueueUrl"]
        stack.values[f"queue:{key}"] = url
        stack.values[f"queue-arn:{key}"] = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{stack.name}-{key}"
    for key, table in manifest["tables"].items():
        stack.values[f"table:{key}"] = _create_table(stack, f"{stack.name}-{key}", table)
    for key in manifest["topics"]:
        topic = stack.client("sns").create_topic(Name=f"{stack.name}-{key}")
        stack.values[f"topic:{key}"] = topic["TopicArn"]


def _create_table(stack: Stack, name: str, table: Mapping[str, Any]) -> str:
    indexes = table.get("indexes", {})
    names = {
        table["hash_key"],
        *(key for index in indexes.values() for key in (index["hash_key"], index["range_key"])),
    }
    global_indexes = [
        {
            "IndexName": key,
            "KeySchema": [
                {"AttributeName": index["hash_key"], "KeyType": "HASH"},
                {"AttributeName": index["range_key"], "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": index["projection"]},
        }
        for key, index in indexes.items()
    ]
    stack.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": table["hash_key"], "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in sorted(names)],
        BillingMode="PAY_PER_REQUEST",
        **({"GlobalSecondaryIndexes": global_indexes} if indexes else {}),
    )
    return name


def _create_secrets(stack: Stack, server: Server, tokens: Mapping[str, str]) -> None:
    contents = {
        "server_client": {"ca": server.ca, "certificate": server.certificate, "key": server.key},
        "api_tokens": dict(tokens),
    }
    for key, content in contents.items():
        answer = stack.client("secretsmanager").create_secret(
            Name=f"{stack.name}-{key}", SecretString=json.dumps(content)
        )
        stack.values[f"secret:{key}"] = answer["ARN"]


def _create_fleet(stack: Stack) -> None:
    """Create an Auto Scaling group without instances; the server runs on this machine."""
    ec2, scaling = stack.client("ec2"), stack.client("autoscaling")
    template = f"{stack.name}-server"
    ec2.create_launch_template(
        LaunchTemplateName=template,
        LaunchTemplateData={"ImageId": "ami-12c6146b", "InstanceType": "g5.xlarge"},
    )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=f"{stack.name}-fleet",
        LaunchTemplate={"LaunchTemplateName": template},
        MinSize=0,
        MaxSize=2,
        DesiredCapacity=0,
        AvailabilityZones=[f"{REGION}a"],
    )
    stack.values["fleet"] = f"{stack.name}-fleet"


def _create_role(stack: Stack) -> None:
    """Create the role that Lambda and Step Functions require; permissions are not enforced."""
    principals = {"Service": ["lambda.amazonaws.com", "states.amazonaws.com"]}
    statement = {"Effect": "Allow", "Principal": principals, "Action": "sts:AssumeRole"}
    stack.client("iam").create_role(
        RoleName=ROLE.rpartition("/")[2],
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )


def _create_functions(stack: Stack, manifest: Mapping[str, Any], built: Mapping[str, Path]) -> None:
    client = stack.client("lambda")
    with tempfile.TemporaryDirectory() as folder:
        code = lambda_packages.build_code_zip(Path(folder) / "code.zip")
        _put_artifact(stack, code)
        layers = {}
        for layer, distributions in lambda_packages.LAYERS.items():
            path = Path(folder) / f"{layer}.zip"
            _put_artifact(stack, lambda_packages.build_reference_zip(built.get(layer, distributions), path))
            answer = client.publish_layer_version(
                LayerName=f"{stack.name}-{layer}",
                Content={"S3Bucket": stack["bucket:artifacts"], "S3Key": f"{layer}.zip"},
            )
            layers[layer] = answer["LayerVersionArn"]
    for key, given in manifest["functions"].items():
        one = manifest["defaults"] | given
        environment = manifest["defaults"]["environment"] | given.get("environment", {})
        answer = client.create_function(
            FunctionName=f"{stack.name}-{key}",
            Runtime=f"python{manifest['runtime']['python']}",
            Role=ROLE,
            Handler=one["handler"],
            Code={"S3Bucket": stack["bucket:artifacts"], "S3Key": "code.zip"},
            Timeout=one["timeout_s"],
            MemorySize=one["memory_mb"],
            EphemeralStorage={"Size": one["ephemeral_mb"]},
            Layers=[layers[layer] for layer in one["layers"]],
            Environment={
                "Variables": {key: str(stack.values.get(value, value)) for key, value in environment.items()}
            },
        )
        stack.values[f"function:{key}"] = answer["FunctionArn"]


def _put_artifact(stack: Stack, path: Path) -> None:
    stack.client("s3").put_object(Bucket=stack["bucket:artifacts"], Key=path.name, Body=path.read_bytes())


def _create_state_machine(stack: Stack, manifest: Mapping[str, Any]) -> None:
    machine = manifest["state_machine"]
    values = {call: stack[f"function:{call}"] for call in machine["calls"]}
    values |= {name: stack.values[reference] for name, reference in machine["parameters"].items()}
    stack.client("stepfunctions").create_state_machine(
        name=stack.name,
        definition=json.dumps(build_definition(values)),
        roleArn=ROLE,
        type=manifest["state_machine"]["type"],
    )


def _create_triggers(stack: Stack, manifest: Mapping[str, Any]) -> None:
    for key, rule in manifest["rules"].items():
        _create_rule(stack, f"{stack.name}-{key}", rule)
    api = stack.client("apigatewayv2").create_api(Name=stack.name, ProtocolType="HTTP")
    triggers = {key: one["trigger"] for key, one in manifest["functions"].items()}
    authorizer = next(key for key, trigger in triggers.items() if trigger["kind"] == "authorizer")
    authorizer_id = _create_authorizer(stack, api["ApiId"], authorizer, triggers[authorizer])
    for key, trigger in triggers.items():
        if trigger["kind"] == "route":
            _create_route(stack, api["ApiId"], key, trigger, authorizer_id)
        elif trigger["kind"] == "queue":
            stack.client("lambda").create_event_source_mapping(
                EventSourceArn=stack[f"queue-arn:{trigger['queue'].removeprefix('queue:')}"],
                FunctionName=f"{stack.name}-{key}",
                BatchSize=trigger["batch"],
                FunctionResponseTypes=["ReportBatchItemFailures"],
            )


def _create_rule(stack: Stack, name: str, rule: Mapping[str, Any]) -> None:
    events = stack.client("events")
    pattern = _resolve(stack, rule["pattern"])
    kind, _, target = rule["target"].partition(":")
    arn = stack[f"queue-arn:{target}"] if kind == "queue" else stack[f"function:{target}"]
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arn}])


def _resolve(stack: Stack, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(stack, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolve(stack, inner) for inner in value]
    return stack.values.get(value, value) if isinstance(value, str) else value


def _create_authorizer(stack: Stack, api_id: str, key: str, trigger: Mapping[str, Any]) -> str:
    answer = stack.client("apigatewayv2").create_authorizer(
        ApiId=api_id,
        AuthorizerType="REQUEST",
        AuthorizerUri=_invocation_uri(stack[f"function:{key}"]),
        AuthorizerPayloadFormatVersion=trigger["payload"],
        EnableSimpleResponses=trigger["simple"],
        IdentitySource=[trigger["identity"]],
        Name=key,
    )
    return str(answer["AuthorizerId"])


def _create_route(
    stack: Stack, api_id: str, key: str, trigger: Mapping[str, Any], authorizer_id: str
) -> None:
    api = stack.client("apigatewayv2")
    integration = api.create_integration(
        ApiId=api_id,
        IntegrationType="AWS_PROXY",
        IntegrationUri=_invocation_uri(stack[f"function:{key}"]),
        PayloadFormatVersion="2.0",
    )
    extra = {"AuthorizationType": "CUSTOM", "AuthorizerId": authorizer_id} if trigger["authorized"] else {}
    api.create_route(
        ApiId=api_id,
        RouteKey=trigger["route"],
        Target=f"integrations/{integration['IntegrationId']}",
        **extra,
    )


def _invocation_uri(arn: str) -> str:
    return f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{arn}/invocations"
