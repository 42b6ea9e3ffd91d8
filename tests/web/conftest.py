"""Fixtures: the page in Chromium, served by the gateway."""

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
ACTION_TIMEOUT_MS = 15_000

OpenBrowser = Callable[..., Any]


def load_result(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return document


@dataclass
class Site:
    """The URL of a running gateway, and the API behind it."""

    url: str
    pipeline: Pipeline


@contextlib.contextmanager
def running_site(
    pipeline: Pipeline | None = None, *, server: str = "127.0.0.1:1", **settings: Any
) -> Iterator[Site]:
    """Serve the page, live captions of the inference server at ``server`` and the API of ``pipeline`` in a thread."""
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
    """A browser tab and the errors recorded in it."""

    page: Any
    errors: list[str]


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Open URLs, each in a new browser context. Fails the test if an error was recorded in any of them."""
    visits: list[Visit] = []
    with contextlib.ExitStack() as stack:

        def open_url(url: str, **context: Any) -> Visit:
            new_context = browser.new_context(
                **{"viewport": {"width": 1360, "height": 850}, "locale": "en-GB", **context}
            )
            stack.callback(new_context.close)
            visits.append(record_errors(new_context.new_page()))
            visits[-1].page.goto(url)
            return visits[-1]

        yield open_url
        errors = [error for visit in visits for error in visit.errors]
    assert errors == []


def record_errors(page: Any) -> Visit:
    """Record exceptions, console errors and violations of the content security policy in a tab."""
    visit = Visit(page, [])
    page.set_default_timeout(ACTION_TIMEOUT_MS)
    page.on("pageerror", lambda error: visit.errors.append(f"exception: {error}"))
    page.on("console", lambda message: visit.errors.append(message.text) if _is_error(message) else None)
    page.on("dialog", lambda dialog: dialog.accept())
    return visit


def _is_error(message: Any) -> bool:
    # The console also logs HTTP errors such as 404 and 409, which many tests provoke.
    return message.type == "error" and not message.text.startswith("Failed to load resource")


def wait_until(page: Any, expression: str, condition: Callable[[], bool] = lambda: True) -> None:
    """Wait until a JavaScript expression and a Python condition are true.

    Playwright's ``wait_for_function`` needs ``eval``, which the page's content security policy forbids.
    """
    deadline = time.monotonic() + ACTION_TIMEOUT_MS / 1000
    while not (condition() and page.evaluate(expression)):
        assert time.monotonic() < deadline, f"timed out: {expression}"
        page.wait_for_timeout(50)
