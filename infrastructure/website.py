"""The website: a private bucket behind CloudFront, with the built page and its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.cors import build_content_security_policy
from infrastructure.storage import Bucket, BucketSpec

# AWS managed cache policies. The first forwards no cookies, headers or query strings.
CACHING_OPTIMIZED = "658327ea-f89d-4fab-a63d-7e88639e58f6"
CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
YEAR_S = 31_536_000
CONFIG_KEY = "config.json"
# Written by `make web` and kept in the repository, so that deployments need no Node.
PAGE_FOLDER = "clients/python/gorggle_gateway/page"
# File names below it contain a hash of the content. All other files are revalidated on every request.
ASSETS_PREFIX = "assets/"
IMMUTABLE_CACHE, NO_CACHE = f"public, max-age={YEAR_S}, immutable", "no-cache"
# Not from `mimetypes`, whose table depends on the machine.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}


class Website(Component):
    """Bucket, distribution and security headers; ``origin`` is the website's URL."""

    def __init__(
        self, name: str, context: StackContext, buckets: Mapping[str, Bucket], sign_in_url: str
    ) -> None:
        """``buckets``: ``uploads`` and ``results``, which pages access; ``sign_in_url``: of the user pool, if any."""
        super().__init__("website:Website", name, context)
        self._sign_in_url = sign_in_url
        self.bucket = Bucket(
            f"{name}-store", context, BucketSpec("website", has_custom_policy=True), self._child
        )
        self.distribution = self._create_distribution(buckets)
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

    def _create_distribution(self, buckets: Mapping[str, Bucket]) -> aws.cloudfront.Distribution:
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
            "response_headers_policy_id": self._create_headers_policy(buckets).id,
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
            # Changes with the API, independently of the pages.
            ordered_cache_behaviors=[
                {**behavior, "path_pattern": f"/{CONFIG_KEY}", "cache_policy_id": CACHING_DISABLED}
            ],
            restrictions={"geo_restriction": {"restriction_type": "none"}},
            viewer_certificate={"cloudfront_default_certificate": True},
            wait_for_deployment=False,
            opts=self._child,
        )

    def _create_headers_policy(self, buckets: Mapping[str, Bucket]) -> aws.cloudfront.ResponseHeadersPolicy:
        bucket_names = pulumi.Output.all(buckets["uploads"].name, buckets["results"].name)
        policy = bucket_names.apply(
            lambda args: build_content_security_policy(
                self._names.region, args[0], args[1], self._sign_in_url
            )
        )
        return aws.cloudfront.ResponseHeadersPolicy(
            f"{self._name}-headers",
            name=self._names.prefix,
            security_headers_config={
                "content_security_policy": {"content_security_policy": policy, "override": True},
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
                        # Camera and microphone for the page itself, not for frames.
                        "header": "Permissions-Policy",
                        "value": "camera=(self), microphone=(self), geolocation=()",
                        "override": True,
                    },
                    {"header": "Cross-Origin-Opener-Policy", "value": "same-origin", "override": True},
                ]
            },
            opts=self._child,
        )

    def publish(self, root: Path, config: Mapping[str, Any]) -> None:
        """Upload the page and its configuration, ``config.json``.

        Raises:
            ValueError: the built page is missing, or contains a file of an unknown type.
        """
        for path, key in list_site_files(root):
            aws.s3.BucketObjectv2(
                f"{self._name}-{key}",
                bucket=self.bucket.name,
                key=key,
                source=pulumi.FileAsset(str(path)),
                content_type=CONTENT_TYPES[path.suffix],
                cache_control=IMMUTABLE_CACHE if key.startswith(ASSETS_PREFIX) else NO_CACHE,
                opts=self._child,
            )
        aws.s3.BucketObjectv2(
            f"{self._name}-{CONFIG_KEY}",
            bucket=self.bucket.name,
            key=CONFIG_KEY,
            # Live captions need the gateway, which is not part of the stack.
            content=pulumi.Output.json_dumps({"live": "", **config}),
            content_type=CONTENT_TYPES[".json"],
            cache_control=NO_CACHE,
            opts=self._child,
        )


def list_site_files(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of the built page with their keys.

    Raises:
        ValueError: the built page is missing, or contains a file of an unknown type.
    """
    folder = root / PAGE_FOLDER
    if not (folder / "index.html").is_file():
        raise ValueError(
            f"{folder} contains no index.html: build the page with `make web`, or set website to false"
        )
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix not in CONTENT_TYPES:
            raise ValueError(
                f"{path} has an unknown file type; supported: {', '.join(sorted(CONTENT_TYPES))}"
            )
        yield path, path.relative_to(folder).as_posix()
