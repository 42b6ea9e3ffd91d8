"""Answers unmatched requests with problem details, which API Gateway's own responses are not."""

from __future__ import annotations

import re
from http import HTTPStatus

from gorggle_lambdas.api import openapi
from gorggle_lambdas.common.api_gateway import HttpProblem, Request, Response, not_found, route


@route
def handler(request: Request) -> Response:
    """Answer a request that matched no route."""
    methods = sorted(_find_allowed_methods(request.raw_path))
    if not methods:
        raise not_found(f"there is no resource {request.raw_path!r}: see /openapi.json")
    allowed = ", ".join(methods)
    raise HttpProblem(
        HTTPStatus.METHOD_NOT_ALLOWED,
        f"{request.raw_path!r} supports {allowed}, not {request.method}",
        {"allow": allowed},
    )


def _find_allowed_methods(path: str) -> set[str]:
    """Return the methods of the OpenAPI path that matches."""
    for pattern, item in openapi.load_openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path):
            return {method.upper() for method in item if method != "parameters"}
    return set()
