"""Gives the API's OpenAPI document."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import yaml

from lambdas.common.http import Request, Response, route

DOCUMENT = Path(__file__).parents[1] / "api" / "openapi.yaml"


@route
def handler(_request: Request) -> Response:
    """Answer ``GET /openapi.json``."""
    headers = {"cache-control": "public, max-age=300", "access-control-allow-origin": "*"}
    return Response(body=openapi_json(), content_type="application/vnd.oai.openapi+json", headers=headers)


@cache
def openapi_json() -> str:
    """The document as JSON."""
    return json.dumps(yaml.safe_load(DOCUMENT.read_text("utf-8")), ensure_ascii=False)
