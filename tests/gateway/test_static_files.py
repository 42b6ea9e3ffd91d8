"""Static files of the web page, and the reverse proxy of the API."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from gorggle_gateway import static_files
from tests.gateway.conftest import run, running_gateway


def list_built_assets() -> list[Path]:
    if not static_files.is_built():
        pytest.skip("the page is not built: make web")
    return list((static_files.PAGE_DIR / "assets").iterdir())


def test_assets_are_served_plain_or_compressed() -> None:
    files = list_built_assets()

    async def test() -> None:
        async with running_gateway("127.0.0.1:1") as gateway:
            for path in files:
                url = f"{gateway.url}/assets/{path.name}"
                for accept_encoding, content_encoding in (
                    ("gzip, br", "gzip"),
                    ("identity", None),
                    ("gzip;q=0", None),
                ):
                    async with gateway.client.get(
                        url, headers={"accept-encoding": accept_encoding}
                    ) as response:
                        assert response.status == 200
                        assert response.headers.get("content-encoding") == content_encoding
                        assert "immutable" in response.headers["cache-control"]
                        assert await response.read() == path.read_bytes()

    run(test())


@pytest.mark.parametrize("name", ["none.js", "..%2f..%2fsettings.py", "%2e%2e/index.html", "index.html"])
def test_only_assets_of_the_page_are_served(name: str) -> None:
    list_built_assets()

    async def test() -> None:
        async with (
            running_gateway("127.0.0.1:1") as gateway,
            gateway.client.get(URL(f"{gateway.url}/assets/{name}", encoded=True)) as response,
        ):
            assert response.status == 404

    run(test())


@contextlib.asynccontextmanager
async def running_api() -> AsyncIterator[str]:
    """Run an API server that responds with the request path."""

    async def respond(request: web.Request) -> web.Response:
        return web.Response(
            text=request.path,
            content_type="text/html",
            headers={"content-security-policy": "default-src 'none'", "x-secret": "no"},
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("path", ["/openapi.json"])
def test_the_api_documentation_is_proxied_with_its_security_policy(path: str) -> None:
    async def test() -> None:
        async with (
            running_api() as api,
            running_gateway("127.0.0.1:1", upstream=api) as gateway,
            gateway.client.get(gateway.url + path) as response,
        ):
            assert response.url.path == f"/api{path}"
            assert await response.text() == path
            assert response.headers.getall("content-security-policy") == ["default-src 'none'"]
            assert "x-secret" not in response.headers

    run(test())


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"origin": "https://evil.example.org"}, b"{}", 403),
        ({}, b" " * (16 * 2**20 + 1), 413),
        ({}, b"{}", 502),
    ],
)
def test_gateway_errors_are_problem_details(headers: dict[str, str], body: bytes, status: int) -> None:
    async def test() -> None:
        async with (
            running_gateway("127.0.0.1:1", upstream="http://127.0.0.1:1") as gateway,
            gateway.client.post(
                f"{gateway.url}/api/uploads", data=io.BytesIO(body), headers=headers
            ) as response,
        ):
            assert response.status == status
            assert response.content_type == "application/problem+json"
            problem = await response.json(content_type=None)
            assert (problem["status"], len(problem["detail"]) > 20) == (status, True)

    run(test())
