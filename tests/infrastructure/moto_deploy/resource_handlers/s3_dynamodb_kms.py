"""Buckets, objects, tables and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi

from tests.infrastructure.moto_deploy.provider_outputs import REGION
from tests.infrastructure.moto_deploy.pulumi_engine import Resource
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    call,
    convert_call,
    handles,
    pop_inputs,
    tag_list,
)


@handles("s3/bucket:Bucket")
def bucket(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, tags, _force = pop_inputs(inputs, "bucket", "tags", "forceDestroy")
    assert_consumed(inputs)
    yield call("s3.CreateBucket", Bucket=name)
    yield call("s3.PutBucketTagging", Bucket=name, Tagging={"TagSet": tag_list(tags)})
    return name, {
        "arn": f"arn:aws:s3:::{name}",
        "bucketRegionalDomainName": f"{name}.s3.{REGION}.amazonaws.com",
        "bucketDomainName": f"{name}.s3.amazonaws.com",
    }


@handles("s3/bucketNotification:BucketNotification")
def notification(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, to_eventbridge = pop_inputs(inputs, "bucket", "eventbridge")
    assert_consumed(inputs, "tags")
    config: dict[str, Any] = {"EventBridgeConfiguration": {}} if to_eventbridge else {}
    yield call("s3.PutBucketNotificationConfiguration", Bucket=name, NotificationConfiguration=config)
    return name, {}


@handles("s3/bucketObjectv2:BucketObjectv2")
def stored_object(resource: Resource, inputs: Inputs) -> CallGenerator:
    source, content, _hash, _tags = pop_inputs(inputs, "source", "content", "sourceHash", "tags")
    # A recorded resource holds the name of its file only.
    is_file = isinstance(source, pulumi.FileAsset)
    body = Path(source.path).read_bytes() if is_file else (content or "").encode()
    yield convert_call("s3.PutObject", inputs, Body=body)
    return inputs["key"], {}


@handles("dynamodb/table:Table")
def table(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, hash_key, range_key, ttl, recovery, encryption, tags = pop_inputs(
        inputs, "name", "hashKey", "rangeKey", "ttl", "pointInTimeRecovery", "serverSideEncryption", "tags"
    )
    keys = [{"AttributeName": hash_key, "KeyType": "HASH"}]
    keys += [{"AttributeName": range_key, "KeyType": "RANGE"}] if range_key else []
    inputs["attributeDefinitions"] = [
        {"attributeName": each["name"], "attributeType": each["type"]} for each in inputs.pop("attributes")
    ]
    for index in inputs.get("globalSecondaryIndexes", []):
        index["indexName"], index["keySchema"] = index.pop("name"), index.pop("keySchemas")
        index["projection"] = {"projectionType": index.pop("projectionType")}
    result = yield convert_call(
        "dynamodb.CreateTable",
        inputs,
        TableName=name,
        KeySchema=keys,
        SSESpecification={
            "Enabled": encryption["enabled"],
            "SSEType": "KMS",
            "KMSMasterKeyId": encryption["kmsKeyArn"],
        },
        Tags=tag_list(tags),
    )
    specification = {"AttributeName": ttl["attributeName"], "Enabled": ttl["enabled"]}
    yield call("dynamodb.UpdateTimeToLive", TableName=name, TimeToLiveSpecification=specification)
    if recovery["enabled"]:
        yield call(
            "dynamodb.UpdateContinuousBackups",
            TableName=name,
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
        )
    return name, {"arn": result["TableDescription"]["TableArn"]}


@handles("kms/key:Key")
def key(resource: Resource, inputs: Inputs) -> CallGenerator:
    has_rotation, _window, tags = pop_inputs(inputs, "enableKeyRotation", "deletionWindowInDays", "tags")
    result = yield convert_call("kms.CreateKey", inputs, Tags=tag_list(tags, "TagKey", "TagValue"))
    identity = result["KeyMetadata"]["KeyId"]
    if has_rotation:
        yield call("kms.EnableKeyRotation", KeyId=identity)
    return identity, {"arn": result["KeyMetadata"]["Arn"], "keyId": identity}
