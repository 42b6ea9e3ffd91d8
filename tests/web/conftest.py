"""Fixtures that serve the web page with a real gateway and open it in Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gorggle_gateway.app import create_app
from gorggle_gateway.settings import GatewaySettings
from tests.web.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
RESULTS = Path(__file__).resolve().parent / "results"
ACTION_LIMIT_MS = 15_000

OpenBrowser = Callable[..., Any]


def result(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return document


@dataclass
class Site:
    """A gateway that serves the page, and the API behind it."""

    url: str
    pipeline: Pipeline


@contextlib.contextmanager
def running_site(
    pipeline: Pipeline | None = None, *, server: str = "127.0.0.1:1", **settings: Any
) -> Iterator[Site]:
    """Serve the page, live captions from ``server`` and the API of ``pipeline`` on a separate thread."""
    pipeline = pipeline or Pipeline()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    async def start() -> web.AppRunner:
        app = create_app(GatewaySettings(listen="127.0.0.1:0", server=server, **settings))
        pipeline.add_routes(app)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = call(start())
    try:
        yield Site(f"http://127.0.0.1:{runner.addresses[0][1]}", pipeline)
    finally:
        call(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as running:
        yield running


@dataclass
class Visit:
    """A browser tab and the errors that occurred in it."""

    page: Any
    faults: list[str]


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens a URL in a new browser context. The test fails if an error occurs in any of them."""
    visits: list[Visit] = []
    with contextlib.ExitStack() as stack:

        def go(url: str, **context: Any) -> Visit:
            made = browser.new_context(
                **{"viewport": {"width": 1360, "height": 850}, "locale": "en-GB", **context}
            )
            stack.callback(made.close)
            visits.append(watched(made.new_page()))
            visits[-1].page.goto(url)
            return visits[-1]

        yield go
        faults = [fault for each in visits for fault in each.faults]
    assert faults == []


def watched(page: Any) -> Visit:
    """Record a tab's errors: exceptions, console errors and violations of the content security policy."""
    visit = Visit(page, [])
    page.set_default_timeout(ACTION_LIMIT_MS)
    page.on("pageerror", lambda error: visit.faults.append(f"exception: {error}"))
    page.on("console", lambda message: visit.faults.append(message.text) if _is_fault(message) else None)
    page.on("dialog", lambda dialog: dialog.accept())
    return visit


def _is_fault(message: Any) -> bool:
    # The console reports responses such as 404 and 409 as errors; many tests expect them.
    return message.type == "error" and not message.text.startswith("Failed to load resource")


def wait_until(page: Any, expression: str, also: Callable[[], bool] = lambda: True) -> None:
    """Wait until a JavaScript expression is true and ``also`` returns true.

    Playwright's own wait calls ``eval``, which the page's content security policy forbids.
    """
    end = time.monotonic() + ACTION_LIMIT_MS / 1000
    while not (also() and page.evaluate(expression)):
        assert time.monotonic() < end, f"timed out waiting for: {expression}"
        page.wait_for_timeout(50)
