"""Plausible computed outputs for resources that are only recorded.

Without values for string outputs, ``apply`` functions of the program would fail on None.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

import pulumi_aws

from tests.infrastructure.moto_deploy.pulumi_engine import Resource

ACCOUNT, REGION = "123456789012", "us-east-1"
# Modules whose names are Python keywords.
_MODULES = {"lambda": "lambda_"}
_STRING_OUTPUT = re.compile(r"Output\[(?:_?builtins\.)?(?:Optional\[)?(?:_?builtins\.)?str\]")
# Kinds whose ARNs other services validate: botocore knows their patterns.
_ARN_FORMATS = {
    "Bucket": "arn:aws:s3:::{name}",
    "Role": "arn:aws:iam::{account}:role/{name}",
    "Policy": "arn:aws:iam::{account}:policy/{name}",
    "InstanceProfile": "arn:aws:iam::{account}:instance-profile/{name}",
    "Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "LayerVersion": "arn:aws:lambda:{region}:{account}:layer:{name}:1",
    "Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "Topic": "arn:aws:sns:{region}:{account}:{name}",
    "Table": "arn:aws:dynamodb:{region}:{account}:table/{name}",
    "StateMachine": "arn:aws:states:{region}:{account}:stateMachine:{name}",
    "Secret": "arn:aws:secretsmanager:{region}:{account}:secret:{name}-AbCdEf",
    "LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}",
    "EventRule": "arn:aws:events:{region}:{account}:rule/{name}",
    "Key": "arn:aws:kms:{region}:{account}:key/00000000-0000-4000-8000-000000000000",
    "Distribution": "arn:aws:cloudfront::{account}:distribution/E1EXAMPLE",
}


def compute_outputs(resource: Resource) -> tuple[str, Mapping[str, Any]]:
    """Return a resource's id and computed outputs."""
    kind = resource.type.rpartition(":")[2]
    name = _resource_name(resource)
    identity = name if kind in _IDENTIFIED_BY_NAME else f"{kind.lower()}-{_hash_suffix(resource.name)}"
    made = {
        key: f"{resource.name}-{key}" for key in string_outputs(resource.type) if key not in resource.inputs
    }
    pattern = _ARN_FORMATS.get(kind, "arn:aws:{service}:{region}:{account}:{kind}/{name}")
    service = resource.type.split(":")[1].split("/")[0]
    made["arn"] = pattern.format(
        name=name, account=ACCOUNT, region=REGION, service=service, kind=kind.lower()
    )
    if kind == "SecurityGroup":
        identity = f"sg-{_hash_suffix(resource.name)}"
    elif kind == "UserPool":
        identity = f"{REGION}_{_hash_suffix(resource.name)}"
    made["id"] = identity
    made["executionArn"] = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{identity}"
    if kind == "Function":
        # The URI for API Gateway.
        path = f"2015-03-31/functions/{made['arn']}/invocations"
        made["invokeArn"] = f"arn:aws:apigateway:{REGION}:lambda:path/{path}"
    return identity, made


# Kinds whose id is their name.
_IDENTIFIED_BY_NAME = {
    "Bucket",
    "Role",
    "Table",
    "LogGroup",
    "EventRule",
    "InstanceProfile",
    "Group",
    "Function",
    "Budget",
}


def _resource_name(resource: Resource) -> str:
    names = ("name", "bucket", "layerName", "functionName")
    return next(
        (resource.inputs[key] for key in names if isinstance(resource.inputs.get(key), str)), resource.name
    )


def _hash_suffix(name: str) -> str:
    return format(abs(hash(name)) % 16**8, "08x")


@functools.cache
def string_outputs(kind: str) -> frozenset[str]:
    """Return the names of a kind's string outputs, as the provider spells them."""
    cls = find_sdk_class(kind)
    found = set()
    for _, member in inspect.getmembers(cls, lambda each: isinstance(each, property)):
        annotation = str(member.fget.__annotations__.get("return", ""))
        if _STRING_OUTPUT.search(annotation):
            found.add(getattr(member.fget, "_pulumi_name", member.fget.__name__))
    return frozenset(found)


def find_sdk_class(kind: str) -> type:
    """Return the SDK class of a type such as ``aws:s3/bucket:Bucket``."""
    _, path, name = kind.split(":")
    module = path.split("/")[0]
    found = getattr(getattr(pulumi_aws, _MODULES.get(module, module)), name)
    assert isinstance(found, type)
    return found
