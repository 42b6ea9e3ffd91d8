"""The HTTP API under the page's own address, for machines where it has none of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web

PREFIX = "/api"
MAX_BODY_BYTES = 16 * 2**20
LIMIT_S = 60.0
_REQUEST_HEADERS = ("accept", "authorization", "content-type", "idempotency-key")
_RESPONSE_HEADERS = ("content-type", "content-disposition", "location", "retry-after", "cache-control")
_CLIENT: web.AppKey[aiohttp.ClientSession] = web.AppKey("upstream", aiohttp.ClientSession)


def add_proxy(
    app: web.Application, upstream: str, token: str | None, is_welcome: Callable[[web.Request], bool]
) -> None:
    """Answer ``/api/…`` with what ``upstream`` answers.

    Args:
        app: gets the route.
        upstream: the API's address, without a slash at its end.
        token: shown to the API in the place of the caller's; None: the caller's own.
        is_welcome: whether pages of an origin may call.
    """

    async def running(app: web.Application) -> AsyncIterator[None]:
        # Within this machine: no proxy of the environment is asked.
        timeout = aiohttp.ClientTimeout(total=LIMIT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as client:
            app[_CLIENT] = client
            yield

    async def answer(request: web.Request) -> web.StreamResponse:
        if not is_welcome(request):
            raise web.HTTPForbidden(text="pages of this origin may not call")
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        address = upstream + request.raw_path.removeprefix(PREFIX)
        body = await request.content.read(MAX_BODY_BYTES + 1)
        while len(body) <= MAX_BODY_BYTES and (more := await request.content.read(MAX_BODY_BYTES)):
            body += more
        if len(body) > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(body))
        try:
            async with request.app[_CLIENT].request(
                request.method, address, data=body or None, headers=headers, allow_redirects=False
            ) as found:
                kept = {name: found.headers[name] for name in _RESPONSE_HEADERS if name in found.headers}
                return web.Response(status=found.status, body=await found.read(), headers=kept)
        except (aiohttp.ClientError, TimeoutError) as error:
            document = {
                "type": "about:blank",
                "title": "Bad Gateway",
                "status": 502,
                "detail": "the API does not answer",
            }
            raise web.HTTPBadGateway(
                text=web.json_response(document).text, content_type="application/problem+json"
            ) from error

    app.cleanup_ctx.append(running)
    app.router.add_route("*", PREFIX + "/{path:.+}", answer)
