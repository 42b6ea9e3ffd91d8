"""The gateway's web application."""

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
_LIVE: web.AppKey[LiveSocketHandler] = web.AppKey("live", LiveSocketHandler)
SESSIONS: web.AppKey[SessionRegistry] = web.AppKey("sessions", SessionRegistry)


def create_app(settings: GatewaySettings) -> web.Application:
    """Build the application; it connects to the inference server with the first session.

    Raises:
        gorggle.ConfigurationError: invalid settings of the inference server's connection.
        TokenFileError: the token file cannot be read.
    """
    tokens = TokenStore(Path(settings.token_file)) if settings.token_file else None
    headers = static_files.build_security_headers(_list_connect_origins(settings))

    @web.middleware
    async def with_headers(request: web.Request, handler: static_files.Handler) -> web.StreamResponse:
        try:
            # Against DNS rebinding: a hostile page's name may resolve to this machine.
            if is_local and not _is_loopback(urlsplit(f"//{request.host}").hostname or ""):
                raise web.HTTPMisdirectedRequest(text="this gateway serves only loopback host names")
            return await handler(request)
        except web.HTTPException as error:
            error.headers.update(headers)
            raise

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        if request.path.startswith("/assets/") and response.status in (200, 206, 304):
            response.headers["cache-control"] = f"public, max-age={static_files.ASSET_MAX_AGE_S}, immutable"

    def authenticate(token: str, request: web.Request) -> str | None:
        """Return the owner of a session: the token's name, or the caller's address without a token file."""
        if tokens is None:
            return f"address {_normalize_address(request.remote or '')}"
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        name = tokens.find_name(token or (sent.strip() if scheme.lower() == "bearer" else ""))
        return None if name is None else f"token {name}"

    def is_allowed_origin(request: web.Request) -> bool:
        """Whether the origin may call; only browsers send one."""
        origin = request.headers.get("origin")
        return origin is None or origin in settings.origins or urlsplit(origin).netloc == request.host

    is_local = _is_loopback(settings.host)

    async def manage_sessions(app: web.Application) -> AsyncIterator[None]:
        async with AsyncClient(
            settings.server,
            tls=bool(settings.ca),
            root_certificates=settings.ca or None,
            client_certificate=settings.cert or None,
            client_key=settings.key or None,
            server_name=settings.server_name or None,
            token=settings.server_token,
        ) as client:
            sessions = app[SESSIONS] = SessionRegistry(client, settings)
            live = app[_LIVE] = LiveSocketHandler(sessions, settings, authenticate, is_allowed_origin)
            yield
            await live.close()
            await sessions.close()

    async def handle_live(request: web.Request) -> web.StreamResponse:
        return await request.app[_LIVE].handle(request)

    async def handle_health(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"}, headers={"cache-control": "no-store"})

    app = web.Application(middlewares=[with_headers])
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(manage_sessions)
    app.router.add_get(LIVE_PATH, handle_live)
    app.router.add_get("/healthz", handle_health)
    if settings.upstream:
        add_proxy(app, settings.upstream.rstrip("/"), settings.upstream_token, is_allowed_origin)
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
    """Return the address that limits apply to: an IPv6 client is identified by its /64 network."""
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
