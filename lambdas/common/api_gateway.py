"""HTTP API adapter: parses API Gateway events, and encodes responses and problem details (RFC 9457)."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.observability import count, instrument, logger

PROBLEM_TYPE = "application/problem+json"
# Content type of the presigned URL that replaces a body over the limit, to distinguish it from the body.
PRESIGNED_URL_TYPE = "application/vnd.gorggle.address+json"
# Lambda's response limit is 6 MB, including the escaping of the body as a JSON string.
MAX_BODY_BYTES = 5 * 2**20


class HttpProblem(Exception):  # noqa: N818 - the term of RFC 9457
    """An error response. ``detail`` is shown to users: what was found, what was expected, what to do."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def bad_request(detail: str) -> HttpProblem:
    """Return a 400 problem: the request is invalid."""
    return HttpProblem(HTTPStatus.BAD_REQUEST, detail)


def not_found(detail: str) -> HttpProblem:
    """Return a 404 problem. Also used for other owners' resources, so that their existence is not revealed."""
    return HttpProblem(HTTPStatus.NOT_FOUND, detail)


def conflict(detail: str) -> HttpProblem:
    """Return a 409 problem: the request is not possible in the current state."""
    return HttpProblem(HTTPStatus.CONFLICT, detail)


@dataclass(frozen=True)
class Request:
    """An API request.

    Attributes:
        owner: the caller, from the authorizer; empty on public routes.
        path_parameters: variables of the path.
        query: query parameters.
        headers: with lower-case names.
        body: as text; empty if there is none.
        context: the Lambda context.
        method, raw_path: as requested, independent of the matched route.
    """

    owner: str = ""
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    context: Any = None
    method: str = ""
    raw_path: str = ""

    def json(self) -> dict[str, Any]:
        """Parse the body as a JSON object.

        Raises:
            HttpProblem: it is not a JSON object.
        """
        try:
            document = json.loads(self.body or "{}")
        except ValueError as error:
            raise bad_request(f"the body is not valid JSON: {error}") from error
        if not isinstance(document, dict):
            raise bad_request(f"the body is a JSON {type(document).__name__}: expected an object")
        return document


@dataclass(frozen=True)
class Response:
    """An API response; a body that is not a string is encoded as JSON."""

    status: HTTPStatus = HTTPStatus.OK
    body: Any = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def is_too_large(text: str) -> bool:
    """Return whether a body exceeds Lambda's response limit."""
    return len(text) > MAX_BODY_BYTES or len(json.dumps(text)) > MAX_BODY_BYTES


def route(endpoint: Callable[[Request], Response]) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """Wrap a function from request to response as a Lambda handler."""

    @functools.wraps(endpoint)
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        try:
            return _to_gateway(endpoint(_parse_request(event, context)))
        except HttpProblem as problem:
            count(f"Problem{problem.status.value}")
            logger.info("refused", status=problem.status.value, detail=problem.detail)
            return _to_gateway_problem(problem, event)
        except Exception as error:
            if aws_clients.as_transient_error(error) is not None:
                logger.exception("an AWS service is not available")
                return _to_gateway_problem(
                    HttpProblem(
                        HTTPStatus.SERVICE_UNAVAILABLE, "a backend service is busy; try again shortly"
                    ),
                    event,
                )
            # The message may contain private data; it is logged under the request ID.
            count("ApiServerErrors")
            logger.exception("the API failed")
            return _to_gateway_problem(HttpProblem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error"), event)

    return instrument(handler)


def _parse_request(event: dict[str, Any], context: Any) -> Request:
    parsed = APIGatewayProxyEventV2(event)
    body = event.get("body") or ""
    if body and event.get("isBase64Encoded"):
        try:
            body = base64.b64decode(body).decode()
        except ValueError as error:
            raise bad_request("the body is not UTF-8; send JSON") from error
    http = event.get("requestContext", {}).get("http") or {}
    return Request(
        owner=_find_owner(event),
        path_parameters=dict(parsed.path_parameters or {}),
        query=dict(parsed.query_string_parameters or {}),
        headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
        body=body,
        context=context,
        method=str(http.get("method", "")),
        raw_path=str(event.get("rawPath") or http.get("path", "")),
    )


def _find_owner(event: Mapping[str, Any]) -> str:
    authorizer = event.get("requestContext", {}).get("authorizer") or {}
    claims = (authorizer.get("jwt") or {}).get("claims") or {}
    context = authorizer.get("lambda") or {}
    return str(claims.get("sub") or context.get("owner") or "")


def require_owner(request: Request) -> str:
    """Return the caller of a route that requires authorization.

    Raises:
        HttpProblem: there is no caller, because the route was deployed without its authorizer.
    """
    if not request.owner:
        raise HttpProblem(
            HTTPStatus.UNAUTHORIZED,
            "authorization is required: send `authorization: Bearer TOKEN`",
            {"www-authenticate": "Bearer"},
        )
    return request.owner


def _to_gateway(response: Response) -> dict[str, Any]:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff", **response.headers}
    reply: dict[str, Any] = {"statusCode": response.status.value, "headers": headers}
    if response.body is not None:
        is_text = isinstance(response.body, str)
        reply["body"] = response.body if is_text else json.dumps(response.body, ensure_ascii=False)
        headers["content-type"] = response.content_type
    return reply


def _to_gateway_problem(problem: HttpProblem, event: Mapping[str, Any]) -> dict[str, Any]:
    request_id = event.get("requestContext", {}).get("requestId")
    document = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        **({"instance": f"urn:request:{request_id}"} if request_id else {}),
    }
    return _to_gateway(Response(problem.status, document, PROBLEM_TYPE, problem.headers))
