"""Shows the API's OpenAPI document as a page to read."""

from __future__ import annotations

from functools import cache

from lambdas.api import document
from lambdas.api.reference import Reference, content_security_policy
from lambdas.common.http import Request, Response, route


@route
def handler(_request: Request) -> Response:
    """Answer ``GET /docs``."""
    headers = {
        "cache-control": "public, max-age=300",
        "content-security-policy": content_security_policy(),
        "referrer-policy": "no-referrer",
    }
    return Response(body=page(), content_type="text/html; charset=utf-8", headers=headers)


@cache
def page() -> str:
    """The page."""
    return Reference(document.openapi()).to_html()
