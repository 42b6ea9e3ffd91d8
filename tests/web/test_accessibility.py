"""Accessibility tests: axe-core (WCAG 2.2 AA) on every page, in both colour schemes and window sizes; saved theme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import EXAMPLES, ROOT, Site, load_result
from tests.web.test_videos import Visitor, word_selector

AXE = ROOT / "clients" / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE, NARROW = {"width": 1360, "height": 850}, {"width": 340, "height": 700}


def find_axe() -> Path:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci --prefix clients/web")
    return AXE


def find_violations(page: Any, selector: str = "html") -> list[str]:
    page.evaluate(find_axe().read_text() + "; undefined")
    report = page.evaluate(f"axe.run('{selector}', {{ runOnly: {RULES}, resultTypes: ['violations'] }})")
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:120] for node in each['nodes']][:3]}"
        for each in report["violations"]
    ]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_violates_wcag(site: Site, visit: Visitor, scheme: str, size: dict[str, int]) -> None:
    find_axe()
    job = site.pipeline.add("two_speakers.mp4", EXAMPLES / "two_speakers.mp4", load_result("two_speakers"))
    failed = site.pipeline.add("broken.mp4", EXAMPLES / "demo.mp4", load_result("demo"))
    failed.failure = {"error": "InvalidMediaError", "reason": "no video"}
    page = visit(site.url, color_scheme=scheme, viewport=size, reduced_motion="reduce").page
    page.wait_for_selector(".row")
    violations = {"home": find_violations(page)}
    page.goto(f"{site.url}/#/jobs/{job.job_id}")
    page.wait_for_selector(".word")
    violations["job"] = find_violations(page)
    page.click(word_selector(1, 2))
    page.fill("#search", "please")
    violations["job in use"] = find_violations(page)
    page.click("summary.button")
    violations["menu"] = find_violations(page, ".menu")
    page.keyboard.press("Escape")
    page.locator(word_selector(1, 2)).focus()
    page.keyboard.press("F2")
    page.wait_for_selector(".word-input")
    violations["correcting"] = find_violations(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    violations["shortcuts"] = find_violations(page)
    page.goto(f"{site.url}/#/live")
    page.wait_for_selector(".live-side")
    violations["live"] = find_violations(page)
    page.goto(f"{site.url}/#/jobs/{failed.job_id}")
    page.wait_for_selector(".failure")
    violations["failed"] = find_violations(page)
    assert {page_name: each for page_name, each in violations.items() if each} == {}


def test_a_narrow_screen_does_not_scroll_horizontally(site: Site, visit: Visitor) -> None:
    job = site.pipeline.add("two_speakers.mp4", EXAMPLES / "two_speakers.mp4", load_result("two_speakers"))
    page = visit(site.url, viewport={"width": 320, "height": 640}).page
    for route in ("#/", f"#/jobs/{job.job_id}", "#/live"):
        page.goto(f"{site.url}/{route}")
        page.wait_for_selector("h1")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, route


def test_the_selected_theme_is_saved(site: Site, visit: Visitor) -> None:
    page = visit(site.url, color_scheme="light").page
    page.click("button[aria-label='Use dark colours']")
    page.reload()
    page.wait_for_selector("button[aria-label='Use light colours']")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
