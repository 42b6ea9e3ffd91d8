"""Settings and fixtures of all tests: the Lambdas' environment, the order of the tests, and the browser.

The browser fixtures have module scope: while Playwright runs, no other code can run an event loop on this thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Absent in the environment of `make parity`.
with contextlib.suppress(ImportError):
    import hypothesis

    # The same examples in every run, so that no change fails by chance. `make fuzz` draws new ones.
    hypothesis.settings.register_profile("repeatable", derandomize=True)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Debian's build without a user interface, which needs half the CPU time; the executable's names on Debian, on Fedora, in snaps and in
# Google's packages.
BROWSERS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
)
# Folders with the longest test files. They run first, so that parallel workers finish at the same time.
SLOW_FOLDERS = ("e2e", "infrastructure", "integration", "web")

OpenBrowser = Callable[..., Any]

# Powertools reads these once, when a test first imports a function, whichever test that is.
os.environ |= {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_TRACE_DISABLED": "true",
    "POWERTOOLS_METRICS_NAMESPACE": "Gorggle",
    "POWERTOOLS_SERVICE_NAME": "gorggle",
}
# The tests' arrays are small, and several workers share the CPUs. Set before the first import of torch or NumPy.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of the slow folders to the front; the order is otherwise kept."""
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return SLOW_FOLDERS.index(folder) if folder in SLOW_FOLDERS else len(SLOW_FOLDERS)

    items.sort(key=rank)


def chromium() -> str:
    """Return the path of the browser; skip the test if there is none."""
    # Imported here, since some environments that run tests lack the gateway's dependencies.
    from gorggle_gateway import static_files

    if not static_files.is_built():
        pytest.skip("the web page has not been built: run `make web`")
    path = os.environ.get("GORGGLE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(
            "Chromium was not found: run `apt-get install chromium`, or set GORGGLE_CHROMIUM to its path"
        )
    return path


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install 'gorggle[dev]'"
    )
    with sync_api.sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def open_browser(playwright: Any) -> Iterator[OpenBrowser]:
    """Return a function that starts Chromium with additional arguments."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Any:
            # Chromium's sandbox needs capabilities that root lacks in a container.
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
