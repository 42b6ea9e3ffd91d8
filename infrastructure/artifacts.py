"""Uploads the packages to S3, under keys that contain their digests, and publishes the Lambda layers."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.lambda_function import CodeLocation
from infrastructure.packaging.package import Package, Packages
from infrastructure.storage import Bucket, BucketSpec


class Artifacts(Component):
    """Bucket of packages, Lambda layers and code locations."""

    def __init__(self, name: str, context: StackContext, packages: Packages) -> None:
        super().__init__("artifacts:Artifacts", name, context)
        # Encrypted with S3's own key: the content is public. Old versions are kept for a week for instances that start
        # from the previous launch template during an update.
        self.bucket = Bucket(f"{name}-store", context, BucketSpec("artifacts", versioned=True), self._child)
        self.code = {role: self._publish_code(role, package) for role, package in packages.code.items()}
        self.layers: Mapping[str, pulumi.Output[str]] = {
            role: self._publish_layer(role, package) for role, package in packages.layers.items()
        }
        server = self._publish("server", packages.server)
        self.server_bundle = (server.bucket, server.key)
        self.register_outputs({"bucket": self.bucket.name})

    def _publish(self, role: str, package: Package) -> aws.s3.BucketObjectv2:
        return aws.s3.BucketObjectv2(
            f"{self._name}-{role}",
            bucket=self.bucket.name,
            key=f"packages/{role}-{package.digest[:16]}.zip",
            source=pulumi.FileAsset(str(package.path)),
            source_hash=package.digest,
            content_type="application/zip",
            opts=self._child,
        )

    def _publish_code(self, role: str, package: Package) -> CodeLocation:
        published = self._publish(f"code-{role}", package)
        return CodeLocation(published.bucket, published.key, package.digest_base64)

    def _publish_layer(self, role: str, package: Package) -> pulumi.Output[str]:
        published = self._publish(f"layer-{role}", package)
        layer = aws.lambda_.LayerVersion(
            f"{self._name}-{role}",
            layer_name=self._names.resource(role),
            s3_bucket=published.bucket,
            s3_key=published.key,
            source_code_hash=package.digest_base64,
            compatible_runtimes=[f"python{self._settings.python_version}"],
            compatible_architectures=[self._settings.architecture],
            opts=self._child,
        )
        arn: pulumi.Output[str] = layer.arn
        return arn
