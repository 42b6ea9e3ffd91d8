"""Tests in Chromium that malicious names, captions and corrections are shown as text and never executed."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from gorggle_gateway import static_files
from tests.web.conftest import EXAMPLES, Site, load_result, wait_until
from tests.web.test_videos import Visitor, word_selector

MALICIOUS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "javascript:alert(1)//",
    '"><svg onload=alert(1)>',
    "{{constructor.constructor('alert(1)')()}}",
    "\u202egpj.exe",
    "a" * 300,
]


def malicious_result() -> dict[str, Any]:
    document = copy.deepcopy(load_result("two_speakers"))
    for segment, text in zip(document["segments"], MALICIOUS, strict=False):
        segment["words"][0]["text"] = text
        segment["words"][0]["alternatives"] = [{**segment["words"][1], "text": MALICIOUS[0]}]
        segment["words"][0]["alternatives"][0].pop("alternatives", None)
        segment["text"] = " ".join(each["text"] for each in segment["words"])
    document["names"] = {"person-1": MALICIOUS[1], "person-2": MALICIOUS[3]}
    document["is_degraded"] = True
    document["sources"]["audio"]["failures"] = [{"reason": MALICIOUS[0]}]
    document["omissions"] = [
        {
            "text": MALICIOUS[1],
            "start_s": 0,
            "end_s": 1,
            "confidence": 0.1,
            "source": "lips",
            "person": "person-1",
            "reason": MALICIOUS[0],
        }
    ]
    return document


def test_malicious_names_and_words_are_shown_as_text(site: Site, visit: Visitor) -> None:
    job = site.pipeline.add(MALICIOUS[0] + ".mp4", EXAMPLES / "two_speakers.mp4", malicious_result())
    page = visit(site.url).page
    page.evaluate("window.alerts = 0; window.alert = () => window.alerts++; undefined")
    assert page.locator("a.name").inner_text() == MALICIOUS[0] + ".mp4"
    page.click("a.name")
    page.wait_for_selector(".word")
    assert page.locator("h1").inner_text() == job.name
    for number, text in enumerate(MALICIOUS[:4], 1):
        assert page.locator(word_selector(number, 0)).inner_text() == text
    page.click(word_selector(1, 0))
    assert page.locator("[data-testid=caption]").count() == 1
    page.click(".degraded summary")
    page.click(".omissions summary")
    assert page.locator("main img, main script, main svg[onload], main iframe").count() == 0
    assert page.evaluate("window.alerts") == 0


def test_malicious_corrections_are_shown_as_text(site: Site, visit: Visitor) -> None:
    job = site.pipeline.add("demo.mp4", EXAMPLES / "demo.mp4", load_result("demo"))
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    page.dblclick(word_selector(1, 0))
    page.keyboard.insert_text(MALICIOUS[0])
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=saved]")
    wait_until(page, "document.querySelectorAll('.word').length > 20")
    assert page.locator("main img").count() == 0
    assert MALICIOUS[0] in page.locator("[data-segment='segment-1'] p").inner_text()


@pytest.mark.parametrize(
    "route", ["#/jobs/../../x", "#/jobs/<img>", "#/%00", "#/sessions/none", "#/jobs/" + "0" * 32]
)
def test_invalid_routes_show_a_page(site: Site, visit: Visitor, route: str) -> None:
    opened = visit(f"{site.url}/{route}")
    assert opened.page.locator("h1").inner_text()
    assert opened.page.locator("img").count() == 0
    opened.page.wait_for_timeout(300)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", "not a video or audio file"),
        ("empty.mp4", b"", "is empty"),
        ("<b>bold</b>.exe", b"MZ", "<b>bold</b>.exe is not a video"),
    ],
)
def test_files_that_are_not_videos_are_rejected_before_the_upload(
    site: Site, visit: Visitor, name: str, content: bytes, message: str
) -> None:
    page = visit(site.url).page
    page.set_input_files("[data-testid=files]", {"name": name, "mimeType": "", "buffer": content})
    assert message in page.locator(".toast.error").inner_text()
    assert not [each for each in site.pipeline.requests if each[0] == "POST"]


def test_files_over_the_limit_are_rejected_before_the_upload(
    site: Site, visit: Visitor, tmp_path: Path
) -> None:
    huge = tmp_path / "huge.mp4"
    with huge.open("wb") as file:
        file.truncate(10 * 10**9)
    page = visit(site.url).page
    page.set_input_files("[data-testid=files]", str(huge))
    assert "huge.mp4 is 10.0 GB; the limit is 5.4 GB" in page.locator(".toast.error").inner_text()
    assert not [each for each in site.pipeline.requests if each[0] == "POST"]


def test_the_page_loads_and_runs_only_its_own_code(site: Site, visit: Visitor) -> None:
    opened = visit(site.url)
    urls: list[str] = []
    opened.page.on("request", lambda request: urls.append(request.url))
    opened.page.reload()
    opened.page.wait_for_selector(".drop")
    assert all(url.startswith((site.url, "blob:")) for url in urls), urls
    with pytest.raises(Exception, match="TrustedScriptURL"):
        opened.page.evaluate("document.createElement('script').src = 'https://evil.example.org/x.js'")
    with pytest.raises(Exception, match="TrustedHTML"):
        opened.page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    # The violations are logged to the console asynchronously.
    opened.page.wait_for_timeout(300)
    opened.errors.clear()


def test_the_policy_allows_no_inline_code_and_no_wildcards(site: Site, visit: Visitor) -> None:
    response = visit(site.url).page.request.get(site.url)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_built_page_has_no_inline_scripts_or_styles() -> None:
    if not static_files.is_built():
        pytest.skip("the page is not built: make web")
    html = (static_files.PAGE_DIR / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)", html)
    assert "<style" not in html
    assert not re.search(r"\s(style|on\w+)=", html)
    code = "".join(path.read_text() for path in Path(static_files.PAGE_DIR / "assets").glob("*.js"))
    assert "eval(" not in code
    assert "new Function" not in code
