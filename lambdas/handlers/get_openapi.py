"""Returns the API's OpenAPI document."""

from __future__ import annotations

from gorggle_lambdas.api import openapi
from gorggle_lambdas.common.api_gateway import Request, Response, route


@route
def handler(_request: Request) -> Response:
    """Answer ``GET /openapi.json``."""
    headers = {"cache-control": "public, max-age=300", "access-control-allow-origin": "*"}
    return Response(
        body=openapi.load_openapi(), content_type="application/vnd.oai.openapi+json", headers=headers
    )
