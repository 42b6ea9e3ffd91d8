"""CORS rules of the API and the buckets, and the website's content security policy.

Plain data, so that tests can apply them in a browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PREFLIGHT_MAX_AGE_S = 3600
API_HEADERS = ["authorization", "content-type", "idempotency-key"]
API_METHODS = ["GET", "POST", "PUT", "DELETE"]
# Response headers that pages may read; video players use ranges and the total size.
EXPOSED_HEADERS = ["Accept-Ranges", "Content-Length", "Content-Range", "Content-Type", "ETag"]


def api_cors_rule(origins: Sequence[Any]) -> dict[str, Any]:
    """Return the rule that lets pages of these origins call the API."""
    return {
        "allow_origins": list(origins),
        "allow_headers": API_HEADERS,
        "allow_methods": API_METHODS,
        "max_age": PREFLIGHT_MAX_AGE_S,
    }


def download_cors_rule(origins: Sequence[Any]) -> dict[str, Any]:
    """Return the rule that lets pages of these origins download objects by presigned URLs, also in ranges."""
    return {
        "id": "read",
        "allowed_methods": ["GET", "HEAD"],
        "allowed_origins": list(origins),
        "allowed_headers": ["range", "if-range", "if-none-match", "if-modified-since"],
        "expose_headers": EXPOSED_HEADERS,
        "max_age_seconds": PREFLIGHT_MAX_AGE_S,
    }


def upload_cors_rule(origins: Sequence[Any]) -> dict[str, Any]:
    """Return the rule that lets pages of these origins upload by presigned forms."""
    return {
        "id": "send",
        "allowed_methods": ["POST"],
        "allowed_origins": list(origins),
        "allowed_headers": ["content-type"],
        "expose_headers": ["ETag"],
        "max_age_seconds": PREFLIGHT_MAX_AGE_S,
    }


def build_content_security_policy(
    region: str, uploads_bucket: str, results_bucket: str, sign_in_url: str = ""
) -> str:
    """Return the policy: only the site's own files, the API, and the buckets of videos and results.

    Args:
        region: of the stack.
        uploads_bucket: name.
        results_bucket: name.
        sign_in_url: token endpoint of the user pool; may be empty.
    """
    # A wildcard: the API is created after the website, whose origin its CORS rule needs.
    api = f"https://*.execute-api.{region}.amazonaws.com"
    videos, result_files = _bucket_origins(region, uploads_bucket), _bucket_origins(region, results_bucket)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            f"media-src 'self' blob: {videos}",
            " ".join(filter(None, (f"connect-src 'self' {api} {videos} {result_files}", sign_in_url))),
            "worker-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def _bucket_origins(region: str, name: str) -> str:
    """Return both origins of a bucket: in us-east-1 presigned URLs have no region."""
    return f"https://{name}.s3.{region}.amazonaws.com https://{name}.s3.amazonaws.com"
