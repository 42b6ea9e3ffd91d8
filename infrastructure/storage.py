"""S3 buckets and DynamoDB tables: encrypted, private, TLS only, with expiry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.iam import POLICY_VERSION, deny_plain_http

UNFINISHED_UPLOAD_DAYS = 1
OLD_VERSION_DAYS = 7


@dataclass(frozen=True)
class BucketSpec:
    """Properties of a bucket.

    Attributes:
        key_arn: KMS key; None for S3's own key, for public content that CloudFront or instances read.
        retain: keep the bucket when the stack is deleted, unless it is empty.
        has_custom_policy: the caller calls ``set_policy`` with further statements.
    """

    role: str
    versioned: bool = False
    event_bridge: bool = False
    expire_days: int | None = None
    key_arn: pulumi.Input[str] | None = None
    retain: bool = False
    has_custom_policy: bool = False


class Bucket(Component):
    """A private, encrypted bucket; ``name`` and ``arn`` are its outputs."""

    def __init__(
        self, name: str, context: StackContext, spec: BucketSpec, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("storage:Bucket", name, context, opts)
        self._spec = spec
        full_name = context.names.bucket(spec.role)
        self.bucket = aws.s3.Bucket(
            f"{name}-bucket",
            bucket=full_name,
            force_destroy=not spec.retain,
            tags={"Name": full_name},
            opts=self._child,
        )
        self.name, self.arn = self.bucket.bucket, self.bucket.arn
        self._block_public_access()
        self._encrypt()
        self._add_lifecycle_rules()
        if spec.versioned:
            aws.s3.BucketVersioning(
                f"{name}-versioning",
                bucket=self.name,
                versioning_configuration={"status": "Enabled"},
                opts=self._child,
            )
        if spec.event_bridge:
            aws.s3.BucketNotification(f"{name}-events", bucket=self.name, eventbridge=True, opts=self._child)
        self.register_outputs({"name": self.name})

    def _block_public_access(self) -> None:
        block = aws.s3.BucketPublicAccessBlock(
            f"{self._name}-private",
            bucket=self.name,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._child,
        )
        aws.s3.BucketOwnershipControls(
            f"{self._name}-owner",
            bucket=self.name,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=self._child,
        )
        # S3 rejects concurrent changes of both.
        self._after_block = pulumi.ResourceOptions(parent=self, depends_on=[block])
        if not self._spec.has_custom_policy:
            self.set_policy()

    def set_policy(self, *statements: Mapping[str, Any]) -> None:
        """Create the bucket's policy: TLS only, and further statements."""
        aws.s3.BucketPolicy(
            f"{self._name}-policy",
            bucket=self.name,
            policy=pulumi.Output.all(self.arn, list(statements)).apply(
                lambda args: json.dumps(build_bucket_policy(*args))
            ),
            opts=self._after_block,
        )

    def _encrypt(self) -> None:
        has_key = self._spec.key_arn is not None
        algorithm: dict[str, Any] = {"sse_algorithm": "aws:kms" if has_key else "AES256"}
        if has_key:
            algorithm["kms_master_key_id"] = self._spec.key_arn
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{self._name}-encryption",
            bucket=self.name,
            # A bucket key avoids a call to KMS for every object.
            rules=[{"apply_server_side_encryption_by_default": algorithm, "bucket_key_enabled": has_key}],
            opts=self._child,
        )

    def _add_lifecycle_rules(self) -> None:
        actions: dict[str, dict[str, Any]] = {
            "unfinished-uploads": {
                "abort_incomplete_multipart_upload": {"days_after_initiation": UNFINISHED_UPLOAD_DAYS}
            }
        }
        if self._spec.expire_days is not None:
            actions["age"] = {"expiration": {"days": self._spec.expire_days}}
        if self._spec.versioned:
            actions["old-versions"] = {"noncurrent_version_expiration": {"noncurrent_days": OLD_VERSION_DAYS}}
        aws.s3.BucketLifecycleConfiguration(
            f"{self._name}-lifecycle",
            bucket=self.name,
            rules=[
                {"id": name, "status": "Enabled", "filter": {"prefix": ""}, **action}
                for name, action in actions.items()
            ],
            opts=self._child,
        )

    def set_cors_rules(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Set the CORS rules; see ``infrastructure.cors``."""
        aws.s3.BucketCorsConfiguration(
            f"{self._name}-origins",
            bucket=self.name,
            cors_rules=[dict(rule) for rule in rules],
            opts=self._child,
        )


def build_bucket_policy(arn: str, statements: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return a policy that requires TLS, with further statements."""
    tls_only = deny_plain_http("s3:*", [arn, f"{arn}/*"])
    return {"Version": POLICY_VERSION, "Statement": [tls_only, *statements]}


class Table(Component):
    """A table with on-demand billing; ``name`` and ``arn`` are its outputs."""

    def __init__(self, name: str, context: StackContext, role: str, spec: Mapping[str, Any]) -> None:
        super().__init__("storage:Table", name, context)
        indexes = spec.get("indexes", {})
        has_recovery = bool(spec.get("point_in_time_recovery"))
        self.table = aws.dynamodb.Table(
            f"{name}-table",
            name=context.names.resource(role),
            billing_mode="PAY_PER_REQUEST",
            hash_key=spec["hash_key"],
            range_key=spec.get("range_key"),
            attributes=[{"name": each, "type": "S"} for each in _list_key_attributes(spec)],
            global_secondary_indexes=[_build_index(index, keys) for index, keys in indexes.items()] or None,
            ttl={"attribute_name": spec["time_to_live"], "enabled": True},
            point_in_time_recovery={"enabled": has_recovery},
            server_side_encryption={"enabled": True, "kms_key_arn": context.key_arn},
            deletion_protection_enabled=has_recovery and context.settings.deletion_protection,
            opts=self._child,
        )
        self.name, self.arn = self.table.name, self.table.arn
        self.register_outputs({"name": self.name})


def _list_key_attributes(spec: Mapping[str, Any]) -> list[str]:
    keyed = [spec, *spec.get("indexes", {}).values()]
    return sorted({each[key] for each in keyed for key in ("hash_key", "range_key") if key in each})


def _build_index(name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    schemas = [{"attribute_name": keys["hash_key"], "key_type": "HASH"}]
    if "range_key" in keys:
        schemas.append({"attribute_name": keys["range_key"], "key_type": "RANGE"})
    return {"name": name, "key_schemas": schemas, "projection_type": keys["projection"]}
