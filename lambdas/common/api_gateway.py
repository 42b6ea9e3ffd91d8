"""The HTTP API's border: requests as types, answers as API Gateway wants them, errors as problem details (RFC 9457)."""

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
# Where an answer is too large: its address, in a type of its own, so that nobody takes it for the thing itself.
PRESIGNED_URL_TYPE = "application/vnd.gorggle.address+json"
# Lambda hands over answers of at most 6 MB, in which the body is a JSON text with its quotes and other signs escaped.
MAX_BODY_BYTES = 5 * 2**20


class HttpProblem(Exception):  # noqa: N818 - RFC 9457 calls it that
    """An answer that is no success. ``detail`` is for people: what was found, what was expected, what to do."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def bad_request(detail: str) -> HttpProblem:
    """The request is wrong in itself."""
    return HttpProblem(HTTPStatus.BAD_REQUEST, detail)


def not_found(detail: str) -> HttpProblem:
    """There is no such thing, or it is somebody else's: both look the same."""
    return HttpProblem(HTTPStatus.NOT_FOUND, detail)


def conflict(detail: str) -> HttpProblem:
    """Not in this state of things."""
    return HttpProblem(HTTPStatus.CONFLICT, detail)


@dataclass(frozen=True)
class Request:
    """What a caller asks.

    Attributes:
        owner: who calls, as the authorizer found; empty on routes that are open to all.
        path_parameters: the variables of the path.
        query: the parameters behind the question mark.
        headers: with lower-case names.
        body: as text; empty where there is none.
        context: the invocation's, as Lambda gives it.
        method, raw_path: as they were called, whatever route took them.
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
        """The body as a JSON object.

        Raises:
            Problem: it is none.
        """
        try:
            document = json.loads(self.body or "{}")
        except ValueError as error:
            raise bad_request(f"the body is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise bad_request(f"the body is a JSON {type(document).__name__}: expected an object")
        return document


@dataclass(frozen=True)
class Response:
    """An answer; a body that is no text is written as JSON."""

    status: HTTPStatus = HTTPStatus.OK
    body: Any = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def is_too_large(text: str) -> bool:
    """Whether a body is more than a function can answer."""
    return len(text) > MAX_BODY_BYTES or len(json.dumps(text)) > MAX_BODY_BYTES


def route(endpoint: Callable[[Request], Response]) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """Make a function that answers a request a Lambda handler."""

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
                        HTTPStatus.SERVICE_UNAVAILABLE, "a service behind the API is busy: try again shortly"
                    ),
                    event,
                )
            # Its text could hold what is nobody's business: the log has it, under the request's id.
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
            raise bad_request("the body is no UTF-8 text: send JSON") from error
    called = event.get("requestContext", {}).get("http") or {}
    return Request(
        owner=_find_owner(event),
        path_parameters=dict(parsed.path_parameters or {}),
        query=dict(parsed.query_string_parameters or {}),
        headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
        body=body,
        context=context,
        method=str(called.get("method", "")),
        raw_path=str(event.get("rawPath") or called.get("path", "")),
    )


def _find_owner(event: Mapping[str, Any]) -> str:
    authorizer = event.get("requestContext", {}).get("authorizer") or {}
    claims = (authorizer.get("jwt") or {}).get("claims") or {}
    context = authorizer.get("lambda") or {}
    return str(claims.get("sub") or context.get("owner") or "")


def require_owner(request: Request) -> str:
    """Who calls, on a route that is not open to all.

    Raises:
        Problem: nobody: the route was deployed without its authorizer. Nothing is open by mistake.
    """
    if not request.owner:
        raise HttpProblem(
            HTTPStatus.UNAUTHORIZED,
            "the request says not who calls: send `authorization: Bearer TOKEN`",
            {"www-authenticate": "Bearer"},
        )
    return request.owner


def _to_gateway(response: Response) -> dict[str, Any]:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff", **response.headers}
    answer: dict[str, Any] = {"statusCode": response.status.value, "headers": headers}
    if response.body is not None:
        is_text = isinstance(response.body, str)
        answer["body"] = response.body if is_text else json.dumps(response.body, ensure_ascii=False)
        headers["content-type"] = response.content_type
    return answer


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
