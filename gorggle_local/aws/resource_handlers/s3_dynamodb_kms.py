"""Buckets, objects, tables, keys and secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi

from gorggle_local.aws.pulumi_engine import Resource
from gorggle_local.aws.resource_handlers.registry import (
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
    domain = f"{name}.s3.us-east-1.amazonaws.com"
    return name, {
        "arn": f"arn:aws:s3:::{name}",
        "bucketRegionalDomainName": domain,
        "bucketDomainName": f"{name}.s3.amazonaws.com",
    }


@handles("s3/bucketVersioning:BucketVersioning")
def versioning(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call("s3.PutBucketVersioning", inputs)
    return inputs["bucket"], {}


@handles("s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration")
def encryption(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, rules = pop_inputs(inputs, "bucket", "rules")
    assert_consumed(inputs, "tags")
    wrapped = {"bucket": name, "serverSideEncryptionConfiguration": {"rules": rules}}
    yield convert_call("s3.PutBucketEncryption", wrapped)
    return name, {}


@handles("s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
def access_block(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, _tags = pop_inputs(inputs, "bucket", "tags")
    wrapped = {"bucket": name, "publicAccessBlockConfiguration": inputs}
    yield convert_call("s3.PutPublicAccessBlock", wrapped)
    return name, {}


@handles("s3/bucketOwnershipControls:BucketOwnershipControls")
def ownership(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, rule = pop_inputs(inputs, "bucket", "rule")
    assert_consumed(inputs, "tags")
    wrapped = {"bucket": name, "ownershipControls": {"rules": [rule]}}
    yield convert_call("s3.PutBucketOwnershipControls", wrapped)
    return name, {}


@handles("s3/bucketPolicy:BucketPolicy")
def bucket_policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call("s3.PutBucketPolicy", inputs)
    return inputs["bucket"], {}


@handles("s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration")
def lifecycle(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, rules = pop_inputs(inputs, "bucket", "rules")
    assert_consumed(inputs, "tags")
    wrapped = {"bucket": name, "lifecycleConfiguration": {"rules": rules}}
    yield convert_call("s3.PutBucketLifecycleConfiguration", wrapped)
    return name, {}


@handles("s3/bucketCorsConfiguration:BucketCorsConfiguration")
def cors(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, rules = pop_inputs(inputs, "bucket", "corsRules")
    assert_consumed(inputs, "tags")
    yield convert_call("s3.PutBucketCors", {"bucket": name, "corsConfiguration": {"corsRules": rules}})
    return name, {}


@handles("s3/bucketNotification:BucketNotification")
def notification(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, to_eventbridge = pop_inputs(inputs, "bucket", "eventbridge")
    assert_consumed(inputs, "tags")
    wanted: dict[str, Any] = {"EventBridgeConfiguration": {}} if to_eventbridge else {}
    yield call("s3.PutBucketNotificationConfiguration", Bucket=name, NotificationConfiguration=wanted)
    return name, {}


@handles("s3/bucketObjectv2:BucketObjectv2")
def stored_object(resource: Resource, inputs: Inputs) -> CallGenerator:
    source, content, _hash, _tags = pop_inputs(inputs, "source", "content", "sourceHash", "tags")
    # A recorded resource holds its file's name only; an applied one holds the file.
    body = (
        Path(source.path).read_bytes() if isinstance(source, pulumi.FileAsset) else (content or "").encode()
    )
    yield convert_call("s3.PutObject", inputs, Body=body)
    return inputs["key"], {}


@handles("dynamodb/table:Table")
def table(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, hash_key, range_key, ttl, recovery, indexes, encrypted, tags = pop_inputs(
        inputs,
        "name",
        "hashKey",
        "rangeKey",
        "ttl",
        "pointInTimeRecovery",
        "globalSecondaryIndexes",
        "serverSideEncryption",
        "tags",
    )
    keys = [{"AttributeName": hash_key, "KeyType": "HASH"}]
    keys += [{"AttributeName": range_key, "KeyType": "RANGE"}] if range_key else []
    inputs["attributeDefinitions"] = [
        {"attributeName": each["name"], "attributeType": each["type"]} for each in inputs.pop("attributes")
    ]
    made = yield convert_call(
        "dynamodb.CreateTable",
        inputs,
        TableName=name,
        KeySchema=keys,
        GlobalSecondaryIndexes=[_convert_index(each) for each in indexes] if indexes else None,
        SSESpecification={
            "Enabled": encrypted["enabled"],
            "SSEType": "KMS",
            "KMSMasterKeyId": encrypted["kmsKeyArn"],
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
    return name, {"arn": made["TableDescription"]["TableArn"]}


def _convert_index(index: Inputs) -> dict[str, Any]:
    keys = [
        {"AttributeName": each["attributeName"], "KeyType": each["keyType"]} for each in index["keySchemas"]
    ]
    return {
        "IndexName": index["name"],
        "KeySchema": keys,
        "Projection": {"ProjectionType": index["projectionType"]},
    }


@handles("kms/key:Key")
def key(resource: Resource, inputs: Inputs) -> CallGenerator:
    rotated, _window, tags = pop_inputs(inputs, "enableKeyRotation", "deletionWindowInDays", "tags")
    made = yield convert_call("kms.CreateKey", inputs, Tags=tag_list(tags, "TagKey", "TagValue"))
    identity = made["KeyMetadata"]["KeyId"]
    if rotated:
        yield call("kms.EnableKeyRotation", KeyId=identity)
    return identity, {"arn": made["KeyMetadata"]["Arn"], "keyId": identity}


@handles("kms/alias:Alias")
def alias(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call("kms.CreateAlias", inputs, {"name": "aliasName"})
    return inputs["name"], {}


@handles("secretsmanager/secret:Secret")
def secret(resource: Resource, inputs: Inputs) -> CallGenerator:
    tags, _days = pop_inputs(inputs, "tags", "recoveryWindowInDays")
    made = yield convert_call("secretsmanager.CreateSecret", inputs, Tags=tag_list(tags))
    return made["ARN"], {"arn": made["ARN"]}


@handles("secretsmanager/secretRotation:SecretRotation")
def rotation(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call("secretsmanager.RotateSecret", inputs, {"rotationLambdaArn": "rotationLambdaARN"})
    return inputs["secretId"], {}
