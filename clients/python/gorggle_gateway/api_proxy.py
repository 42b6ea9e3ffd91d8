"""The HTTP API under the page's own address, for machines where it has none of its own."""

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
    # A document of the API's, such as its reference, is more confined than the page is.
    "content-security-policy",
)
# Where people and tools look for the API's description.
_DOCUMENTATION_PATHS = ("/openapi.json",)
_CLIENT: web.AppKey[aiohttp.ClientSession] = web.AppKey("upstream", aiohttp.ClientSession)


def add_proxy(
    app: web.Application, upstream: str, token: str | None, is_allowed_origin: Callable[[web.Request], bool]
) -> None:
    """Answer ``/api/…`` with what ``upstream`` answers.

    Args:
        app: gets the route.
        upstream: the API's address, without a slash at its end.
        token: shown to the API in the place of the caller's; None: the caller's own.
        is_allowed_origin: whether pages of an origin may call.
    """

    async def running(app: web.Application) -> AsyncIterator[None]:
        # Within this machine: no proxy of the environment is asked.
        timeout = aiohttp.ClientTimeout(total=UPSTREAM_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as client:
            app[_CLIENT] = client
            yield

    async def answer(request: web.Request) -> web.StreamResponse:
        if not is_allowed_origin(request):
            return _build_problem_response(HTTPStatus.FORBIDDEN, "pages of this origin may not call")
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
                f"the body has more than {MAX_BODY_BYTES} bytes: videos go to the address that an upload is given",
            )
        try:
            async with request.app[_CLIENT].request(
                request.method, address, data=body or None, headers=headers, allow_redirects=False
            ) as found:
                kept = {name: found.headers[name] for name in _RESPONSE_HEADERS if name in found.headers}
                return web.Response(status=found.status, body=await found.read(), headers=kept)
        except (aiohttp.ClientError, TimeoutError):
            return _build_problem_response(
                HTTPStatus.BAD_GATEWAY, "the API does not answer: try again shortly"
            )

    async def lead(request: web.Request) -> web.StreamResponse:
        raise web.HTTPPermanentRedirect(PREFIX + request.path)

    app.cleanup_ctx.append(running)
    for path in _DOCUMENTATION_PATHS:
        app.router.add_get(path, lead)
    app.router.add_route("*", PREFIX + "/{path:.+}", answer)


def _build_problem_response(status: HTTPStatus, detail: str) -> web.Response:
    """Problem details (RFC 9457), as the API itself would give them."""
    document = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return web.json_response(document, status=status.value, content_type="application/problem+json")
