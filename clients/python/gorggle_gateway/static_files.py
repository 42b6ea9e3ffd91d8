"""The built web page: its files, its configuration and its security headers."""

from __future__ import annotations

import functools
import gzip
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

PAGE_DIR = Path(__file__).resolve().parent / "page"
# Asset names contain a hash of the content.
ASSET_MAX_AGE_S = 365 * 24 * 3600

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_content_security_policy(connect: tuple[str, ...]) -> str:
    """Return the page's policy: its own files, and connections to its own origin and to ``connect``."""
    others = "".join(f" {origin}" for origin in connect)
    sockets = "".join(
        f" {origin.replace('http', 'ws', 1)}" for origin in connect if origin.startswith("http")
    )
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            f"media-src 'self' blob:{others}",
            f"connect-src 'self'{others}{sockets}",
            "worker-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def build_security_headers(connect: tuple[str, ...]) -> dict[str, str]:
    """Return the headers of every response."""
    return {
        "content-security-policy": build_content_security_policy(connect),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(self), microphone=(self), fullscreen=(self), geolocation=(), usb=(), payment=()",
    }


def add_static_routes(application: web.Application, config: Mapping[str, object]) -> None:
    """Serve the page at ``/``, and its configuration at ``/config.json``."""

    async def send_config(_request: web.Request) -> web.StreamResponse:
        return web.json_response(dict(config), headers={"cache-control": "no-store"})

    application.router.add_get("/config.json", send_config)
    revalidated = {"cache-control": "no-cache"}
    # All files are read now, so that a later build never mixes with this one.
    index, icon = File.load(PAGE_DIR / "index.html"), File.load(PAGE_DIR / "icon.svg")
    for path, file in (("/", index), ("/index.html", index), ("/icon.svg", icon)):
        application.router.add_get(path, functools.partial(file.send, revalidated))
    for asset in (PAGE_DIR / "assets").iterdir():
        application.router.add_get(f"/assets/{asset.name}", functools.partial(File.load(asset).send, {}))


@dataclass(frozen=True)
class File:
    """A file of the page, in memory, since the page is small."""

    content_type: str
    plain: bytes
    zipped: bytes

    @classmethod
    def load(cls, path: Path) -> File:
        """Read a file."""
        plain = path.read_bytes()
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return cls(content_type, plain, gzip.compress(plain, 9, mtime=0))

    async def send(self, extra_headers: Mapping[str, str], request: web.Request) -> web.StreamResponse:
        """Return the file, gzip-compressed if the client accepts it."""
        parts = request.headers.get("accept-encoding", "").replace(" ", "").split(",")
        accepted = {part.partition(";")[0] for part in parts if not part.endswith(";q=0")}
        headers = {"vary": "accept-encoding", **extra_headers}
        body = self.plain
        if "gzip" in accepted:
            headers["content-encoding"], body = "gzip", self.zipped
        return web.Response(body=body, content_type=self.content_type, headers=headers)


@functools.cache
def is_built() -> bool:
    """Whether the page was built."""
    return (PAGE_DIR / "index.html").is_file()
