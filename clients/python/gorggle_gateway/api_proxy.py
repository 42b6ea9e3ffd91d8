"""Reverse proxy of the HTTP API below the page's own origin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import aiohttp
from aiohttp import web

PREFIX = "/api"
MAX_BODY_BYTES = 16 * 2**20
UPSTREAM_TIMEOUT_S = 60.0
_REQUEST_HEADERS = ("accept", "authorization", "content-type", "idempotency-key")
_RESPONSE_HEADERS = (
    *("content-type", "content-disposition", "location", "retry-after", "cache-control", "allow"),
    # The API's documents, such as its reference, have a stricter policy than the page.
    "content-security-policy",
)
# Usual path of an API's description.
_DOCUMENTATION_PATH = "/openapi.json"
_CLIENT: web.AppKey[aiohttp.ClientSession] = web.AppKey("upstream", aiohttp.ClientSession)


def add_proxy(
    app: web.Application, upstream: str, token: str | None, is_allowed_origin: Callable[[web.Request], bool]
) -> None:
    """Relay ``/api/…`` to ``upstream``.

    Args:
        app: the application to add routes to.
        upstream: the API's address, without a trailing slash.
        token: bearer token for the API instead of the caller's; None relays the caller's.
        is_allowed_origin: whether a request's origin may call the API.
    """

    async def manage_client(app: web.Application) -> AsyncIterator[None]:
        # The upstream is on this machine: ignore proxy variables.
        timeout = aiohttp.ClientTimeout(total=UPSTREAM_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as client:
            app[_CLIENT] = client
            yield

    async def relay(request: web.Request) -> web.StreamResponse:
        if not is_allowed_origin(request):
            return _build_problem_response(HTTPStatus.FORBIDDEN, "this origin is not allowed to call the API")
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        address = upstream + request.raw_path.removeprefix(PREFIX)
        body = await request.content.read(MAX_BODY_BYTES + 1)
        while len(body) <= MAX_BODY_BYTES and (more := await request.content.read(MAX_BODY_BYTES)):
            body += more
        if len(body) > MAX_BODY_BYTES:
            return _build_problem_response(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body exceeds {MAX_BODY_BYTES} bytes: send videos to the URL of an upload",
            )
        try:
            async with request.app[_CLIENT].request(
                request.method, address, data=body or None, headers=headers, allow_redirects=False
            ) as response:
                relayed = {
                    name: response.headers[name] for name in _RESPONSE_HEADERS if name in response.headers
                }
                return web.Response(status=response.status, body=await response.read(), headers=relayed)
        except (aiohttp.ClientError, TimeoutError):
            return _build_problem_response(
                HTTPStatus.BAD_GATEWAY, "the API is not reachable: try again later"
            )

    async def redirect(request: web.Request) -> web.StreamResponse:
        raise web.HTTPPermanentRedirect(PREFIX + request.path)

    app.cleanup_ctx.append(manage_client)
    app.router.add_get(_DOCUMENTATION_PATH, redirect)
    app.router.add_route("*", PREFIX + "/{path:.+}", relay)


def _build_problem_response(status: HTTPStatus, detail: str) -> web.Response:
    """Return problem details (RFC 9457), the API's own error format."""
    document = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return web.json_response(document, status=status.value, content_type="application/problem+json")
