"""The page: its built files, what it has to know, and the headers that keep it safe."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).resolve().parent / "page"
# Their names hold a hash of their content.
ASSETS_FOR_S = 365 * 24 * 3600

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def content_security_policy(connect: tuple[str, ...]) -> str:
    """What the page may do: run and show its own files, and talk to the given addresses beside its own."""
    others = " ".join(("", *connect)) if connect else ""
    sockets = " ".join(
        ("", *(origin.replace("http", "ws", 1) for origin in connect if origin.startswith("http")))
    )
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            f"media-src 'self' blob:{others}",
            f"connect-src 'self'{others}{sockets if connect else ''}",
            "worker-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def headers(connect: tuple[str, ...]) -> dict[str, str]:
    """The headers of every answer."""
    return {
        "content-security-policy": content_security_policy(connect),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(self), microphone=(self), fullscreen=(self), geolocation=(), usb=(), payment=()",
    }


def add_page(application: web.Application, config: Mapping[str, object], folder: Path = FOLDER) -> None:
    """Serve the page at ``/``, and what it has to know at ``/config.json``."""

    async def index(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(folder / "index.html", headers={"cache-control": "no-cache"})

    async def icon(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(folder / "icon.svg", headers={"cache-control": "no-cache"})

    async def told(_request: web.Request) -> web.StreamResponse:
        return web.json_response(dict(config), headers={"cache-control": "no-store"})

    application.router.add_get("/", index)
    application.router.add_get("/index.html", index)
    application.router.add_get("/icon.svg", icon)
    application.router.add_get("/config.json", told)
    application.router.add_static("/assets", folder / "assets")


@functools.cache
def is_built(folder: Path = FOLDER) -> bool:
    """Whether the page's files are there."""
    return (folder / "index.html").is_file()
