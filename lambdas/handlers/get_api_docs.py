"""Shows the API's OpenAPI document as a page to read."""

from __future__ import annotations

from functools import cache

from gorggle_lambdas.api import openapi
from gorggle_lambdas.api.html_docs import OpenApiHtml, build_content_security_policy
from gorggle_lambdas.common.api_gateway import Request, Response, route


@route
def handler(_request: Request) -> Response:
    """Answer ``GET /docs``."""
    headers = {
        "cache-control": "public, max-age=300",
        "content-security-policy": build_content_security_policy(),
        "referrer-policy": "no-referrer",
    }
    return Response(body=page(), content_type="text/html; charset=utf-8", headers=headers)


@cache
def page() -> str:
    """The page."""
    return OpenApiHtml(openapi.load_openapi()).to_html()
