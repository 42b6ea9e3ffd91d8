"""What all tests start from: the environment of the pipeline's functions, and the browser for those that need one.

Each module has a browser of its own: while Playwright runs, nothing else in this thread can run an event loop.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# What Debian, Fedora, snaps and Google call it.
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

OpenBrowser = Callable[..., Any]

# Powertools reads these once, when the first test imports a function, wherever that test is.
os.environ |= {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_TRACE_DISABLED": "true",
    "POWERTOOLS_METRICS_NAMESPACE": "Gorggle",
    "POWERTOOLS_SERVICE_NAME": "gorggle",
}


def chromium() -> str:
    """The browser's path; where there is none, the test is left out."""
    # Not every environment that runs tests has what the gateway takes.
    from gorggle_gateway import static_files

    if not static_files.is_built():
        pytest.skip("the page is not built: make web")
    named = os.environ.get("GORGGLE_CHROMIUM")
    path = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or name one in GORGGLE_CHROMIUM")
    return path


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="there is no playwright: pip install 'gorggle[dev]'"
    )
    with sync_api.sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def open_browser(playwright: Any) -> Iterator[OpenBrowser]:
    """Starts a Chromium with further arguments."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Any:
            # Chromium's own sandbox takes rights that root in a container does not have.
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = playwright.chromium.launch(
                executable_path=chromium(),
                args=[
                    *sandbox,
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--autoplay-policy=no-user-gesture-required",
                    *arguments,
                ],
            )
            stack.callback(browser.close)
            return browser

        yield start


@pytest.fixture(scope="module")
def browser(open_browser: OpenBrowser) -> Any:
    return open_browser()
