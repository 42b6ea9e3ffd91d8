"""HTTP APIs of API Gateway: routes and authorizers from moto's state, function invocations with payload format 2.0.

moto stores HTTP APIs but does not serve them. Not emulated: stages, throttling, JWT authorizers.
"""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from moto.apigatewayv2.models import apigatewayv2_backends

Call = Callable[[str, dict[str, Any]], Any]
_FUNCTION_ARN = re.compile(r"functions/(arn:[^/]+)/invocations|(arn:aws[a-z-]*:lambda:.+)")
# Paths below this prefix control the emulator.
CONTROL_PREFIX = "/_local/"


class HttpApi:
    """The HTTP APIs of one account and region."""

    def __init__(self, account: str, region: str, call: Call) -> None:
        self._backend = apigatewayv2_backends[account][region]
        self._call = call

    def handle(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, source: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Handle a request; return status, headers and body."""
        address = urlsplit(target)
        found = self._find_route(method, address.path)
        if found is None:
            return 404, {"content-type": "application/json"}, b'{"message":"Not Found"}'
        api, route, parameters = found
        event = _build_event(method, address, headers, body, source, route.route_key, parameters)
        refusal = self._authorize(api, route, event)
        if refusal is not None:
            return refusal, {"content-type": "application/json"}, b'{"message":"Unauthorized"}'
        integration = api.integrations[route.target.rpartition("/")[2]]
        return _to_http_response(self._call(_parse_function_arn(integration.integration_uri), event))

    def _find_route(self, method: str, path: str) -> tuple[Any, Any, dict[str, str]] | None:
        """Return API, route and path parameters; ``$default`` matches if no other route does."""
        default: tuple[Any, Any, dict[str, str]] | None = None
        for api in self._backend.apis.values():
            for route in sorted(api.routes.values(), key=lambda one: one.route_key.count("{")):
                if route.route_key == "$default":
                    default = api, route, {}
                    continue
                route_method, _, pattern = route.route_key.partition(" ")
                match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern), path)
                if match and route_method in (method, "ANY"):
                    return api, route, {name: unquote(value) for name, value in match.groupdict().items()}
        return default

    def _authorize(self, api: Any, route: Any, event: dict[str, Any]) -> int | None:
        """Add the authorizer's result to the event; return a status if the request is denied."""
        if route.authorization_type in (None, "", "NONE"):
            return None
        header = event["headers"].get("authorization")
        if not header:
            return 401
        authorizer = api.authorizers[route.authorizer_id]
        request = {**event, "type": "REQUEST", "routeArn": "arn:local", "identitySource": [header]}
        answer = self._call(_parse_function_arn(authorizer.authorizer_uri), request)
        if not isinstance(answer, dict) or not answer.get("isAuthorized"):
            return 403
        event["requestContext"]["authorizer"] = {"lambda": answer.get("context") or {}}
        return None


def create_server(port: int, api: HttpApi, control: Callable[[str, bytes], Any]) -> ThreadingHTTPServer:
    """Return an HTTP server for the APIs; the caller runs it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.startswith(CONTROL_PREFIX):
                status, headers = 200, {"content-type": "application/json"}
                content = json.dumps(control(self.path.removeprefix(CONTROL_PREFIX), body)).encode()
            else:
                lower = {name.lower(): value for name, value in self.headers.items()}
                status, headers, content = api.handle(
                    self.command, self.path, lower, body, self.client_address[0]
                )
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815 - the base class's names

        def log_message(self, *_: Any) -> None:
            """Log nothing; functions have their own logs."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def _build_event(
    method: str,
    address: Any,
    headers: Mapping[str, str],
    body: bytes,
    source: str,
    route_key: str,
    parameters: dict[str, str],
) -> dict[str, Any]:
    try:
        text, is_base64 = body.decode(), False
    except UnicodeDecodeError:
        text, is_base64 = base64.b64encode(body).decode(), True
    query = dict(parse_qsl(address.query, keep_blank_values=True))
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": address.path,
        "rawQueryString": address.query,
        "headers": dict(headers),
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": headers.get("host", "localhost"),
            "http": {
                "method": method,
                "path": address.path,
                "protocol": "HTTP/1.1",
                "sourceIp": source,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": route_key,
            "stage": "$default",
            "timeEpoch": int(time.time() * 1000),
        },
        "isBase64Encoded": is_base64,
    }
    if query:
        event["queryStringParameters"] = query
    if parameters:
        event["pathParameters"] = parameters
    if text:
        event["body"] = text
    return event


def _to_http_response(answer: Any) -> tuple[int, dict[str, str], bytes]:
    if not isinstance(answer, dict) or "statusCode" not in answer:
        return 500, {"content-type": "application/json"}, b'{"message":"Internal Server Error"}'
    content = answer.get("body") or ""
    raw = base64.b64decode(content) if answer.get("isBase64Encoded") else content.encode()
    return (
        int(answer["statusCode"]),
        {k.lower(): str(v) for k, v in (answer.get("headers") or {}).items()},
        raw,
    )


def _parse_function_arn(uri: str) -> str:
    match = _FUNCTION_ARN.search(uri)
    if match is None:
        raise ValueError(f"{uri} is not the ARN of a Lambda function")
    return match[1] or match[2]
