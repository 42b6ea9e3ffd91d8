"""The browser application: a private bucket that CloudFront alone may read, and what is put into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.cors import build_content_security_policy
from infrastructure.naming import Names
from infrastructure.storage import Bucket, BucketSpec

# AWS's own policy: cache, compress, and forward nothing (no cookie, no header, no query).
CACHING_OPTIMIZED = "658327ea-f89d-4fab-a63d-7e88639e58f6"
CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
YEAR_S = 31_536_000
CONFIG_KEY = "config.json"
# The built page is in the repository (`make web` writes it): publishing it takes no Node.
PAGE_FOLDER = "clients/python/gorggle_gateway/page"
# Names below it hold a hash of their content; everything else is asked for anew, so that a new page is seen at once.
ASSETS_PREFIX = "assets/"
IMMUTABLE_CACHE, NO_CACHE = f"public, max-age={YEAR_S}, immutable", "no-cache"
# What mimetypes takes from the machine that it runs on must not depend on it.
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


class Website(pulumi.ComponentResource):
    """Bucket, distribution and headers."""

    def __init__(
        self,
        name: str,
        names: Names,
        buckets: Mapping[str, Bucket],
        sign_in_url: str = "",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """``buckets``: ``uploads`` and ``results``, which the pages speak to; ``sign_in_url``: likewise, where there is one."""
        super().__init__("gorggle:website:Website", name, None, opts)
        self._name, self._names, self._sign_in_url = name, names, sign_in_url
        self._child = pulumi.ResourceOptions(parent=self)
        self.bucket = Bucket(
            f"{name}-store", names, BucketSpec("website", has_custom_policy=True), self._child
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
            # Where the API is may change while the pages stay.
            ordered_cache_behaviors=[
                {**behavior, "path_pattern": f"/{CONFIG_KEY}", "cache_policy_id": CACHING_DISABLED}
            ],
            restrictions={"geo_restriction": {"restriction_type": "none"}},
            viewer_certificate={"cloudfront_default_certificate": True},
            wait_for_deployment=False,
            opts=self._child,
        )

    def _create_headers_policy(self, buckets: Mapping[str, Bucket]) -> aws.cloudfront.ResponseHeadersPolicy:
        spoken_to = pulumi.Output.all(buckets["uploads"].name, buckets["results"].name)
        content = spoken_to.apply(
            lambda known: build_content_security_policy(
                self._names.region, known[0], known[1], self._sign_in_url
            )
        )
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
                    },
                    {"header": "Cross-Origin-Opener-Policy", "value": "same-origin", "override": True},
                ]
            },
            opts=self._child,
        )

    def publish(self, root: Path, config: Mapping[str, Any]) -> None:
        """Put the application and what it must know of the stack into the bucket.

        Raises:
            ValueError: the built page is not there, or holds a file of a kind that is not served.
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
            # No gateway is here: live captions come with a server of one's own.
            content=pulumi.Output.json_dumps({"live": "", **config}),
            content_type=CONTENT_TYPES[".json"],
            cache_control=NO_CACHE,
            opts=self._child,
        )


def list_site_files(root: Path) -> Iterator[tuple[Path, str]]:
    """Files of the browser application and their keys.

    Raises:
        ValueError: there is no built page, or it holds a file of a kind that is not served.
    """
    folder = root / PAGE_FOLDER
    if not (folder / "index.html").is_file():
        raise ValueError(
            f"{folder} holds no index.html: build the page with `make web`, or set website to false"
        )
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix not in CONTENT_TYPES:
            raise ValueError(
                f"{path} is a {path.suffix or 'nameless'} file: known are {', '.join(sorted(CONTENT_TYPES))}"
            )
        yield path, path.relative_to(folder).as_posix()
