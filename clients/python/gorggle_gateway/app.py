"""The gateway as a web application."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from gorggle import AsyncClient
from gorggle_gateway import static_files
from gorggle_gateway.api_proxy import add_proxy
from gorggle_gateway.session_registry import SessionRegistry
from gorggle_gateway.settings import GatewaySettings
from gorggle_gateway.token_file import TokenStore
from gorggle_gateway.websocket_handler import LiveSocketHandler

LIVE_PATH = "/v1/live"
SESSIONS: web.AppKey[SessionRegistry] = web.AppKey("sessions", SessionRegistry)


def create_app(settings: GatewaySettings) -> web.Application:
    """Put the gateway together; it connects to the inference server with the first session.

    Raises:
        gorggle.ConfigurationError: how to reach the inference server cannot be.
        TokenFileError: the token file cannot be read.
    """
    tokens = TokenStore(Path(settings.token_file)) if settings.token_file else None
    headers = static_files.build_security_headers(_list_connect_origins(settings))

    @web.middleware
    async def with_headers(request: web.Request, handler: static_files.Handler) -> web.StreamResponse:
        try:
            # A name that a stranger's page has pointed at this machine makes that page one of its own.
            if is_local and not _is_loopback(urlsplit(f"//{request.host}").hostname or ""):
                raise web.HTTPMisdirectedRequest(text="this address is for this machine alone")
            return await handler(request)
        except web.HTTPException as error:
            error.headers.update(headers)
            raise

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        if request.path.startswith("/assets/") and response.status in (200, 206, 304):
            response.headers["cache-control"] = f"public, max-age={static_files.ASSET_MAX_AGE_S}, immutable"

    def owner_of(token: str, request: web.Request) -> str | None:
        """Whose session it is: the token's name, or without tokens the address that calls."""
        if tokens is None:
            return f"address {_normalize_address(request.remote or '')}"
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        name = tokens.find_name(token or (sent.strip() if scheme.lower() == "bearer" else ""))
        return None if name is None else f"token {name}"

    def is_welcome(request: web.Request) -> bool:
        """Browsers say which page calls; programs that are none may say nothing."""
        origin = request.headers.get("origin")
        return origin is None or origin in settings.origins or urlsplit(origin).netloc == request.host

    is_local = _is_loopback(settings.host)

    async def running(app: web.Application) -> AsyncIterator[None]:
        async with AsyncClient(
            settings.server,
            tls=bool(settings.ca),
            root_certificates=settings.ca or None,
            client_certificate=settings.cert or None,
            client_key=settings.key or None,
            server_name=settings.server_name or None,
            token=settings.server_token,
        ) as client:
            sessions = app[SESSIONS] = SessionRegistry(client, settings.limits)
            live = LiveSocketHandler(sessions, settings.limits, owner_of, is_welcome)
            sockets.append(live)
            yield
            await live.close()
            await sessions.close()

    sockets: list[LiveSocketHandler] = []

    async def answer_live(request: web.Request) -> web.StreamResponse:
        return await sockets[0].handle(request)

    async def answer_health(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"}, headers={"cache-control": "no-store"})

    app = web.Application(middlewares=[with_headers])
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(running)
    app.router.add_get(LIVE_PATH, answer_live)
    app.router.add_get("/healthz", answer_health)
    if settings.upstream:
        add_proxy(app, settings.upstream.rstrip("/"), settings.upstream_token, is_welcome)
    if static_files.is_built():
        config = {
            "api": settings.api,
            "live": LIVE_PATH,
            "auth": "token" if settings.token_file else "none",
            "max_upload_bytes": settings.max_upload_bytes,
        }
        static_files.add_static_routes(app, config)
    return app


def _list_connect_origins(settings: GatewaySettings) -> tuple[str, ...]:
    origins = list(settings.connect)
    if "://" in settings.api:
        parts = urlsplit(settings.api)
        origins.insert(0, f"{parts.scheme}://{parts.netloc}")
    return tuple(origins)


def _normalize_address(address: str) -> str:
    """An address that limits count by: one IPv6 subscriber has a whole network of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
