"""Answers requests that no route takes: API Gateway's own answer would be no problem details."""

from __future__ import annotations

import re
from http import HTTPStatus

from gorggle_lambdas.api import openapi
from gorggle_lambdas.common.api_gateway import HttpProblem, Request, Response, not_found, route


@route
def handler(request: Request) -> Response:
    """Answer what comes by ``$default``."""
    methods = sorted(_find_allowed_methods(request.raw_path))
    if not methods:
        raise not_found(f"there is nothing at {request.raw_path!r}: GET openapi.json tells what there is")
    allowed = ", ".join(methods)
    raise HttpProblem(
        HTTPStatus.METHOD_NOT_ALLOWED,
        f"{request.raw_path!r} takes {allowed}, not {request.method}",
        {"allow": allowed},
    )


def _find_allowed_methods(path: str) -> set[str]:
    """What the document's path that is meant can be asked with."""
    for pattern, item in openapi.load_openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path):
            return {method.upper() for method in item if method != "parameters"}
    return set()
