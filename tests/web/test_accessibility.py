"""axe-core on every page: WCAG 2.2 AA, dark and light, narrow and wide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import EXAMPLES, ROOT, Site, result
from tests.web.test_videos import Go, word

AXE = ROOT / "clients" / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE, NARROW = {"width": 1360, "height": 850}, {"width": 340, "height": 700}


def axe() -> Path:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci --prefix clients/web")
    return AXE


def violations(page: Any, where: str = "html") -> list[str]:
    page.evaluate(axe().read_text() + "; undefined")
    found = page.evaluate(f"axe.run('{where}', {{ runOnly: {RULES}, resultTypes: ['violations'] }})")
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:120] for node in each['nodes']][:3]}"
        for each in found["violations"]
    ]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_violation(site: Site, visit: Go, scheme: str, size: dict[str, int]) -> None:
    axe()
    job = site.pipeline.add("two_speakers.mp4", EXAMPLES / "two_speakers.mp4", result("two_speakers"))
    failed = site.pipeline.add("broken.mp4", EXAMPLES / "demo.mp4", result("demo"))
    failed.failure = {"error": "InvalidMediaError", "reason": "no video"}
    page = visit(site.url, color_scheme=scheme, viewport=size, reduced_motion="reduce").page
    page.wait_for_selector(".row")
    found = {"home": violations(page)}
    page.goto(f"{site.url}/#/jobs/{job.job_id}")
    page.wait_for_selector(".word")
    found["job"] = violations(page)
    page.click(word(1, 2))
    page.fill("#search", "please")
    found["job in use"] = violations(page)
    page.click("summary.button")
    found["menu"] = violations(page, ".menu")
    page.keyboard.press("Escape")
    page.locator(word(1, 2)).focus()
    page.keyboard.press("F2")
    page.wait_for_selector(".word-input")
    found["correcting"] = violations(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    found["shortcuts"] = violations(page)
    page.goto(f"{site.url}/#/live")
    page.wait_for_selector(".live-side")
    found["live"] = violations(page)
    page.goto(f"{site.url}/#/jobs/{failed.job_id}")
    page.wait_for_selector(".failure")
    found["failed"] = violations(page)
    assert {where: what for where, what in found.items() if what} == {}


def test_a_narrow_screen_is_never_scrolled_sideways(site: Site, visit: Go) -> None:
    job = site.pipeline.add("two_speakers.mp4", EXAMPLES / "two_speakers.mp4", result("two_speakers"))
    page = visit(site.url, viewport={"width": 320, "height": 640}).page
    for address in ("#/", f"#/jobs/{job.job_id}", "#/live"):
        page.goto(f"{site.url}/{address}")
        page.wait_for_selector("h1")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, address


def test_the_theme_is_chosen_and_kept(site: Site, visit: Go) -> None:
    page = visit(site.url, color_scheme="light").page
    page.click("button[aria-label='Use dark colours']")
    page.reload()
    page.wait_for_selector("button[aria-label='Use light colours']")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
