"""Hostile names, captions and corrections in a real Chromium: shown as text, and nothing else."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from gorggle_gateway import static_files
from tests.web.conftest import EXAMPLES, Site, result, wait_until
from tests.web.test_videos import Go, word

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "javascript:alert(1)//",
    '"><svg onload=alert(1)>',
    "{{constructor.constructor('alert(1)')()}}",
    "\u202egpj.exe",
    "a" * 300,
]


def hostile_result() -> dict[str, Any]:
    document = copy.deepcopy(result("two_speakers"))
    for segment, text in zip(document["segments"], HOSTILE, strict=False):
        segment["words"][0]["text"] = text
        segment["words"][0]["alternatives"] = [{**segment["words"][1], "text": HOSTILE[0]}]
        segment["words"][0]["alternatives"][0].pop("alternatives", None)
        segment["text"] = " ".join(each["text"] for each in segment["words"])
    document["names"] = {"person-1": HOSTILE[1], "person-2": HOSTILE[3]}
    document["is_degraded"] = True
    document["sources"]["sound"]["failures"] = [{"reason": HOSTILE[0]}]
    document["omissions"] = [
        {
            "text": HOSTILE[1],
            "start_s": 0,
            "end_s": 1,
            "confidence": 0.1,
            "source": "lips",
            "person": "person-1",
            "reason": HOSTILE[0],
        }
    ]
    return document


def test_hostile_names_and_words_are_shown_and_do_nothing(site: Site, visit: Go) -> None:
    job = site.pipeline.add(HOSTILE[0] + ".mp4", EXAMPLES / "two_speakers.mp4", hostile_result())
    page = visit(site.url).page
    page.evaluate("window.alerts = 0; window.alert = () => window.alerts++; undefined")
    assert page.locator("a.name").inner_text() == HOSTILE[0] + ".mp4"
    page.click("a.name")
    page.wait_for_selector(".word")
    assert page.locator("h1").inner_text() == job.name
    for number, text in enumerate(HOSTILE[:4], 1):
        assert page.locator(word(number, 0)).inner_text() == text
    page.click(word(1, 0))
    assert page.locator("[data-testid=caption]").count() == 1
    page.click(".degraded summary")
    page.click(".unnoticed summary")
    assert page.locator("main img, main script, main svg[onload], main iframe").count() == 0
    assert page.evaluate("window.alerts") == 0


def test_hostile_corrections_come_back_as_text(site: Site, visit: Go) -> None:
    job = site.pipeline.add("demo.mp4", EXAMPLES / "demo.mp4", result("demo"))
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    page.dblclick(word(1, 0))
    page.keyboard.insert_text(HOSTILE[0])
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=saved]")
    wait_until(page, "document.querySelectorAll('.word').length > 20")
    assert page.locator("main img").count() == 0
    assert HOSTILE[0] in page.locator("[data-segment='segment-1'] p").inner_text()


@pytest.mark.parametrize(
    "address", ["#/jobs/../../x", "#/jobs/<img>", "#/%00", "#/sessions/none", "#/jobs/" + "0" * 32]
)
def test_strange_addresses_are_answered_kindly(site: Site, visit: Go, address: str) -> None:
    going = visit(f"{site.url}/{address}")
    assert going.page.locator("h1").inner_text()
    assert going.page.locator("img").count() == 0
    going.page.wait_for_timeout(300)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("notes.txt", b"hello", "not a video or audio file"),
        ("empty.mp4", b"", "is empty"),
        ("<b>bold</b>.exe", b"MZ", "<b>bold</b>.exe is not a video"),
    ],
)
def test_what_is_no_video_is_refused_before_it_is_sent(
    site: Site, visit: Go, name: str, content: bytes, says: str
) -> None:
    page = visit(site.url).page
    page.set_input_files("[data-testid=files]", {"name": name, "mimeType": "", "buffer": content})
    assert says in page.locator(".notice.error").inner_text()
    assert not [each for each in site.pipeline.requests if each[0] == "POST"]


def test_ten_gigabytes_are_refused_before_they_are_sent(site: Site, visit: Go, tmp_path: Path) -> None:
    huge = tmp_path / "huge.mp4"
    with huge.open("wb") as file:
        file.truncate(10 * 10**9)
    page = visit(site.url).page
    page.set_input_files("[data-testid=files]", str(huge))
    assert "huge.mp4 is 10.0 GB; the limit is 5.4 GB" in page.locator(".notice.error").inner_text()
    assert not [each for each in site.pipeline.requests if each[0] == "POST"]


def test_nothing_runs_or_loads_that_is_not_the_pages_own(site: Site, visit: Go) -> None:
    going = visit(site.url)
    addresses: list[str] = []
    going.page.on("request", lambda request: addresses.append(request.url))
    going.page.reload()
    going.page.wait_for_selector(".drop")
    assert all(address.startswith((site.url, "blob:")) for address in addresses), addresses
    with pytest.raises(Exception, match="TrustedScriptURL"):
        going.page.evaluate("document.createElement('script').src = 'https://evil.example.org/x.js'")
    with pytest.raises(Exception, match="TrustedHTML"):
        going.page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    # The refusals are noted in the console, a moment later.
    going.page.wait_for_timeout(300)
    going.faults.clear()


def test_the_policy_names_no_inline_code_and_no_wildcard(site: Site, visit: Go) -> None:
    answer = visit(site.url).page.request.get(site.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_built_page_holds_no_inline_script_or_style() -> None:
    if not static_files.is_built():
        pytest.skip("the page is not built: make web")
    html = (static_files.PAGE_DIR / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)", html)
    assert "<style" not in html
    assert not re.search(r"\s(style|on\w+)=", html)
    code = "".join(path.read_text() for path in Path(static_files.PAGE_DIR / "assets").glob("*.js"))
    assert "eval(" not in code
    assert "new Function" not in code
