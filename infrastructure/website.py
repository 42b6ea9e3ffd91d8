"""The browser application: a private bucket that CloudFront alone may read."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from pathlib import Path

import pulumi
import pulumi_aws as aws

from infrastructure.naming import Names
from infrastructure.storage import Bucket, BucketShape

# AWS's own policy: cache, compress, and forward nothing (no cookie, no header, no query).
CACHING_OPTIMIZED = "658327ea-f89d-4fab-a63d-7e88639e58f6"
CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
YEAR_S = 31_536_000
CONFIGURATION = "config.json"
# What a build makes and what it is made of: the first that is there is published.
SOURCES = ("clients/web/dist", "clients/web")
PUBLISHED = {
    ".html",
    ".js",
    ".mjs",
    ".css",
    ".svg",
    ".png",
    ".ico",
    ".woff2",
    ".wasm",
    ".webmanifest",
    ".vtt",
    ".mp4",
}


class Website(pulumi.ComponentResource):
    """Bucket, distribution and headers."""

    def __init__(
        self, name: str, names: Names, uploads: Bucket, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("gorggle:website:Website", name, None, opts)
        self._name, self._names = name, names
        self._child = pulumi.ResourceOptions(parent=self)
        self.bucket = Bucket(
            f"{name}-store", names, BucketShape("website", policy_by_owner=True), self._child
        )
        self.distribution = self._distribution(uploads)
        self.origin = pulumi.Output.concat("https://", self.distribution.domain_name)
        self.bucket.set_policy(
            {
                "Sid": "CloudFrontReads",
                "Effect": "Allow",
                "Principal": {"Service": "cloudfront.amazonaws.com"},
                "Action": "s3:GetObject",
                "Resource": pulumi.Output.concat(self.bucket.arn, "/*"),
                "Condition": {"StringEquals": {"AWS:SourceArn": self.distribution.arn}},
            }
        )
        self.register_outputs({"origin": self.origin})

    def _distribution(self, uploads: Bucket) -> aws.cloudfront.Distribution:
        control = aws.cloudfront.OriginAccessControl(
            f"{self._name}-access",
            name=self._names.prefix,
            origin_access_control_origin_type="s3",
            signing_behavior="always",
            signing_protocol="sigv4",
            opts=self._child,
        )
        behavior = {
            "target_origin_id": "site",
            "viewer_protocol_policy": "redirect-to-https",
            "allowed_methods": ["GET", "HEAD"],
            "cached_methods": ["GET", "HEAD"],
            "compress": True,
            "response_headers_policy_id": self._headers(uploads).id,
        }
        return aws.cloudfront.Distribution(
            f"{self._name}-distribution",
            comment=self._names.prefix,
            enabled=True,
            is_ipv6_enabled=True,
            http_version="http2and3",
            default_root_object="index.html",
            price_class="PriceClass_100",
            origins=[
                {
                    "origin_id": "site",
                    "domain_name": self.bucket.bucket.bucket_regional_domain_name,
                    "origin_access_control_id": control.id,
                }
            ],
            default_cache_behavior={**behavior, "cache_policy_id": CACHING_OPTIMIZED},
            # Where the API is may change while the pages stay.
            ordered_cache_behaviors=[
                {**behavior, "path_pattern": f"/{CONFIGURATION}", "cache_policy_id": CACHING_DISABLED}
            ],
            restrictions={"geo_restriction": {"restriction_type": "none"}},
            viewer_certificate={"cloudfront_default_certificate": True},
            wait_for_deployment=False,
            opts=self._child,
        )

    def _headers(self, uploads: Bucket) -> aws.cloudfront.ResponseHeadersPolicy:
        content = uploads.name.apply(lambda bucket: content_policy(self._names.region, bucket))
        return aws.cloudfront.ResponseHeadersPolicy(
            f"{self._name}-headers",
            name=self._names.prefix,
            security_headers_config={
                "content_security_policy": {"content_security_policy": content, "override": True},
                "content_type_options": {"override": True},
                "frame_options": {"frame_option": "DENY", "override": True},
                "referrer_policy": {"referrer_policy": "no-referrer", "override": True},
                "strict_transport_security": {
                    "access_control_max_age_sec": YEAR_S,
                    "include_subdomains": True,
                    "override": True,
                },
            },
            custom_headers_config={
                "items": [
                    {
                        # The camera and the microphone for our own page and for no frame in it.
                        "header": "Permissions-Policy",
                        "value": "camera=(self), microphone=(self), geolocation=()",
                        "override": True,
                    }
                ]
            },
            opts=self._child,
        )

    def publish(self, root: Path, api: pulumi.Output[str], sign_in: dict[str, pulumi.Input[str]]) -> None:
        """Put the application and what it must know of the stack into the bucket."""
        for path, key in site_files(root):
            kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
            aws.s3.BucketObjectv2(
                f"{self._name}-{key}",
                bucket=self.bucket.name,
                key=key,
                source=pulumi.FileAsset(str(path)),
                content_type=f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
                opts=self._child,
            )
        known = pulumi.Output.json_dumps({"api": api, "region": self._names.region, **sign_in})
        aws.s3.BucketObjectv2(
            f"{self._name}-{CONFIGURATION}",
            bucket=self.bucket.name,
            key=CONFIGURATION,
            content=known,
            content_type="application/json",
            opts=self._child,
        )


def content_policy(region: str, uploads: str) -> str:
    """What the pages may load: themselves, the API, and videos from the bucket that they were sent to."""
    # The API's own address is made after the site's, since the API must know whose pages may call it.
    api = f"https://*.execute-api.{region}.amazonaws.com"
    bucket = f"https://{uploads}.s3.{region}.amazonaws.com https://{uploads}.s3.amazonaws.com"
    return "; ".join(
        (
            "default-src 'self'",
            f"connect-src 'self' {api} {bucket} https://*.amazoncognito.com",
            f"media-src 'self' blob: {bucket}",
            "img-src 'self' blob: data:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def site_files(root: Path) -> Iterator[tuple[Path, str]]:
    """Files of the browser application and their keys."""
    folder = next((root / each for each in SOURCES if (root / each).is_dir()), None)
    if folder is None:
        return
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "node_modules" for part in place.parts)
        if path.suffix in PUBLISHED and path.is_file() and not hidden:
            yield path, place.as_posix()
