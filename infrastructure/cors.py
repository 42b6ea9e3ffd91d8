"""What pages of the site may ask of other addresses: CORS of the API and the buckets, and the site's content security policy.

Plain data, so that a browser can be held to it in tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PREFLIGHT_MAX_AGE_S = 3600
API_HEADERS = ["authorization", "content-type", "idempotency-key"]
API_METHODS = ["GET", "POST", "PUT", "DELETE"]
# What a page may learn of an answer that it was given: a player asks for ranges, and for the size of the whole.
EXPOSED_HEADERS = ["Accept-Ranges", "Content-Length", "Content-Range", "Content-Type", "ETag"]


def api_cors_rule(origins: Sequence[Any]) -> dict[str, Any]:
    """Pages of these origins may call the API."""
    return {
        "allow_origins": list(origins),
        "allow_headers": API_HEADERS,
        "allow_methods": API_METHODS,
        "max_age": PREFLIGHT_MAX_AGE_S,
    }


def download_cors_rule(origins: Sequence[Any]) -> dict[str, Any]:
    """Pages of these origins may read, whole and in ranges, what an address was signed for."""
    return {
        "id": "read",
        "allowed_methods": ["GET", "HEAD"],
        "allowed_origins": list(origins),
        "allowed_headers": ["range", "if-range", "if-none-match", "if-modified-since"],
        "expose_headers": EXPOSED_HEADERS,
        "max_age_seconds": PREFLIGHT_MAX_AGE_S,
    }


def upload_cors_rule(origins: Sequence[Any]) -> dict[str, Any]:
    """Pages of these origins may send the form that was signed for them."""
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
    """What the pages may do: run and show the site's own files, ask the API, send and play videos, fetch results.

    Args:
        region: of the stack.
        uploads_bucket: name of the bucket of videos.
        results_bucket: name of the bucket of results.
        sign_in_url: where the pages get tokens; empty: nowhere.
    """
    # The API's own address is made after the site's, since the API must know whose pages may call it.
    api = f"https://*.execute-api.{region}.amazonaws.com"
    videos, fetched = _bucket_origins(region, uploads_bucket), _bucket_origins(region, results_bucket)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            f"media-src 'self' blob: {videos}",
            " ".join(filter(None, (f"connect-src 'self' {api} {videos} {fetched}", sign_in_url))),
            "worker-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def _bucket_origins(region: str, name: str) -> str:
    """Both addresses of a bucket: in the first region S3 signs the one without a region."""
    return f"https://{name}.s3.{region}.amazonaws.com https://{name}.s3.amazonaws.com"
