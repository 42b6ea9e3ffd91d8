"""Videos in a real Chromium: drop, watch, play, correct, search, export."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.caption_parsers import read_srt, read_ttml, read_webvtt
from tests.web.conftest import EXAMPLES, Site, Visit, result, running_site, wait_until
from tests.web.pipeline import Pipeline

Go = Callable[..., Visit]
SHOWN_PERCENT = "document.querySelector('.steps [role=progressbar]')?.ariaValueNow"
TRUTH = json.loads((EXAMPLES / "demo.json").read_text())


def opened(site: Site, visit: Go, name: str = "demo", **context: Any) -> Any:
    """The page of a job that is done."""
    job = site.pipeline.add(f"{name}.mp4", EXAMPLES / f"{name}.mp4", result(name))
    page = visit(f"{site.url}/#/jobs/{job.job_id}", **context).page
    page.wait_for_selector(".word")
    wait_until(page, "document.querySelector('video').readyState >= 2")
    return page


def word(segment: int, index: int) -> str:
    return f"[data-segment='segment-{segment}'] [data-index='{index}']"


def now(page: Any) -> float:
    at: float = page.evaluate("document.querySelector('video').currentTime")
    return at


def saved(page: Any, pipeline: Pipeline, versions: int) -> None:
    (job,) = pipeline.jobs.values()
    wait_until(
        page,
        "document.querySelector('.save').dataset.state === 'saved'",
        lambda: len(job.results) == versions,
    )


def test_a_dropped_video_is_uploaded_read_and_shown(visit: Go) -> None:
    with running_site(Pipeline(seconds=4)) as site:
        page = visit(site.url).page
        data = page.evaluate_handle(
            """async (bytes) => {
                const transfer = new DataTransfer();
                const data = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
                transfer.items.add(new File([data], "demo.mp4", { type: "video/mp4" }));
                return transfer;
            }""",
            base64((EXAMPLES / "demo.mp4").read_bytes()),
        )
        page.dispatch_event(".drop", "drop", {"dataTransfer": data})
        page.wait_for_selector("a.name:text-is('demo.mp4')")
        page.click("a.name")
        page.wait_for_selector(".steps")
        percents = []
        while (percent := page.evaluate(SHOWN_PERCENT)) is not None:
            percents.append(int(percent))
            page.wait_for_timeout(100)
        page.wait_for_selector(".word")
    assert percents == sorted(percents)
    assert len(set(percents)) > 2, "the steps are seen as they happen"
    assert page.locator(".word").count() >= len([w for s in TRUTH["sentences"] for w in s["words"]])


def test_captions_are_over_the_picture_when_they_are_said(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    for sentence in TRUTH["sentences"]:
        first, last = sentence["words"][0], sentence["words"][-1]
        middle = (first["start_s"] + last["end_s"]) / 2
        page.evaluate(f"document.querySelector('video').currentTime = {middle}")
        wait_until(page, "!document.querySelector('video').seeking")
        caption = page.locator("[data-testid=caption]").inner_text()
        assert caption.split()[:4] == sentence["text"].split()[:4]
    page.evaluate("document.querySelector('video').currentTime = 4.0")
    wait_until(page, "!document.querySelector('[data-testid=caption]')")


def test_each_speakers_face_has_a_box_and_a_colour(site: Site, visit: Go) -> None:
    page = opened(site, visit, "two_speakers")
    seen = {}
    for segment in (1, 2):
        page.click(word(segment, 2))
        box = page.locator(".box.speaking")
        box.wait_for()
        seen[box.get_attribute("data-person")] = (
            box.bounding_box()["x"],
            box.evaluate("(element) => getComputedStyle(element).borderTopColor"),
        )
    (left, colour), (right, other) = seen["person-1"], seen["person-2"]
    assert left + 100 < right
    assert colour != other


def test_a_word_that_is_clicked_is_where_the_player_goes(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    page.click(word(3, 1))
    start_s = result("demo")["segments"][2]["words"][1]["start_s"]
    assert now(page) == pytest.approx(start_s, abs=0.05)
    details = page.locator(".word-card").inner_text()
    assert "white" in details
    assert "lips and sound" in details
    assert re.search(r"\d+ %", details)


def test_a_word_that_is_clicked_before_the_video_is_there_is_not_forgotten(site: Site, visit: Go) -> None:
    job = site.pipeline.add("demo.mp4", EXAMPLES / "demo.mp4", result("demo"))
    page = visit(site.url).page
    held: list[Any] = []
    holds = True
    page.route("**/store/*", lambda route: held.append(route) if holds else route.continue_())
    page.goto(f"{site.url}/#/jobs/{job.job_id}")
    page.click(word(3, 1))
    wait_until(page, "true", lambda: bool(held))
    holds = False
    for request in held:
        request.continue_()
    wait_until(page, "document.querySelector('video').readyState >= 2")
    start_s = result("demo")["segments"][2]["words"][1]["start_s"]
    assert now(page) == pytest.approx(start_s, abs=0.05)


def test_the_transcript_follows_and_marks_the_word_that_is_said(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    page.click("button[aria-label='Play']")
    wait_until(page, "document.querySelector('.word.spoken')")
    page.click("button[aria-label='Pause']")
    spoken, at = page.locator(".word.spoken").inner_text(), now(page)
    near = [
        w
        for s in result("demo")["segments"]
        for w in s["words"]
        if w["start_s"] - 0.3 <= at <= w["end_s"] + 0.8
    ]
    assert spoken in {w["text"] for w in near}


def test_a_correction_is_saved_and_there_after_reloading(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    page.dblclick(word(2, 6))
    page.keyboard.type("thanks a lot")
    page.keyboard.press("Enter")
    saved(page, site.pipeline, 2)
    page.reload()
    page.wait_for_selector(".word")
    assert (
        "place red in h nine please thanks a lot" in page.locator("[data-segment='segment-2'] p").inner_text()
    )
    (job,) = site.pipeline.jobs.values()
    corrected = job.results[-1]["segments"][1]["words"][-3:]
    assert [each["source"] for each in corrected] == ["correction"] * 3


def test_who_types_at_once_loses_no_letter(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    focused = page.evaluate(
        """() => {
            const word = document.querySelector("button.word");
            word.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
            const next = (done) => Promise.resolve().then(() => done(document.activeElement.className));
            return new Promise((done) => Promise.resolve().then(() => next(done)));
        }"""
    )
    assert focused == "word-input"


def test_undo_takes_back_and_redo_does_it_again(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    first = page.locator(word(1, 0))
    first.focus()
    page.keyboard.press("F2")
    page.keyboard.type("been")
    page.keyboard.press("Enter")
    assert first.inner_text() == "been"
    page.keyboard.press("Control+z")
    assert first.inner_text() == "bin"
    page.keyboard.press("Control+Shift+z")
    assert first.inner_text() == "been"
    page.keyboard.press("e")
    page.keyboard.type("gone")
    page.keyboard.press("Escape")
    assert first.inner_text() == "been"
    page.keyboard.press("Control+s")
    saved(page, site.pipeline, 2)


def test_speakers_are_renamed_everywhere_and_in_the_captions(site: Site, visit: Go) -> None:
    page = opened(site, visit, "two_speakers")
    page.click("button[aria-label='Rename Person 1']")
    page.keyboard.type("Ada <script>")
    page.keyboard.press("Enter")
    page.locator("select.who").nth(1).select_option("person-1")
    saved(page, site.pipeline, 2)
    assert page.locator("select.who").nth(1).evaluate("(e) => e.selectedOptions[0].text") == "Ada <script>"
    voices = [cue.voice for cue in read_webvtt(exported(page, "WebVTT"))]
    assert voices == ["Ada <script>", "Ada <script>", "Ada <script>", "Person 2"]


def test_search_finds_words_and_goes_from_match_to_match(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    page.keyboard.press("/")
    page.keyboard.type("white")
    assert page.locator(".count").inner_text() == "1 of 2"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.locator(".count").inner_text() == "2 of 2"
    assert page.locator(".match.current").inner_text() == "white"
    assert now(page) == pytest.approx(result("demo")["segments"][4]["words"][1]["start_s"], abs=0.05)
    page.fill("#search", "no such word")
    assert page.locator(".count").inner_text() == "not found"


def exported(page: Any, label: str) -> str:
    page.click("summary.button")
    with page.expect_download() as download:
        page.click(f".menu button:has-text('{label}')")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert download.value.suggested_filename.split(".")[0] in {"demo", "two_speakers"}
    return text


def test_exports_hold_the_corrected_words(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    page.dblclick(word(1, 0))
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    files = {label: exported(page, label) for label in ("WebVTT", "SubRip", "TTML", "JSON", "Text")}
    for label, read in (("WebVTT", read_webvtt), ("SubRip", read_srt), ("TTML", read_ttml)):
        cues = read(files[label])
        assert " ".join(cues[0].lines).startswith("pin blue at f two now"), label
        assert cues[0].start_ms == pytest.approx(1000, abs=150)
    assert json.loads(files["JSON"])["segments"][0]["words"][0]["text"] == "pin"
    assert files["Text"].startswith("pin blue at f two now\n")


def test_everything_is_reached_with_the_keyboard(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    page.locator(word(1, 0)).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "at"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "place"
    page.keyboard.press("Enter")
    wait_until(page, "!document.querySelector('video').paused")
    page.keyboard.press("k")
    wait_until(page, "document.querySelector('video').paused")
    before = now(page)
    page.keyboard.press("l")
    assert now(page) == pytest.approx(before + 5, abs=0.5)
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open] kbd")
    assert page.locator("dialog[open] kbd").count() > 5
    page.keyboard.press("Escape")
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent.trim()")
        )
    for control in (
        "Play",
        "Position",
        "Mute",
        "Captions",
        "Face boxes",
        "Full screen",
        "Search the transcript",
        "Export",
    ):
        assert control in reached


def test_somebody_elses_correction_is_not_overwritten_unasked(site: Site, visit: Go) -> None:
    page = opened(site, visit)
    (job,) = site.pipeline.jobs.values()
    job.results.append(job.results[-1])
    page.dblclick(word(1, 0))
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=conflict]")
    page.click("button:text-is('Keep my version')")
    saved(page, site.pipeline, 3)
    assert job.results[-1]["segments"][0]["words"][0]["text"] == "pin"


def test_what_could_not_be_saved_is_there_after_reloading(site: Site, visit: Go) -> None:
    opening = visit
    page = opened(site, opening)
    site.pipeline.is_down = True
    page.dblclick(word(1, 0))
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=failed]")
    site.pipeline.is_down = False
    page.reload()
    page.wait_for_selector(word(1, 0))
    assert page.locator(word(1, 0)).inner_text() == "pin"
    saved(page, site.pipeline, 2)


def test_a_failed_job_says_why_and_runs_again(site: Site, visit: Go) -> None:
    job = site.pipeline.add("demo.mp4", EXAMPLES / "demo.mp4", result("demo"))
    job.failure = {"error": "InvalidMediaError", "reason": "the file is <b>no</b> video"}
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    told = page.locator(".failure").inner_text()
    assert "the file is <b>no</b> video" in told
    assert "Read lips and sound" in told, "how far it got"
    page.click(".failure button")
    page.wait_for_selector(".word")


def test_a_page_without_a_token_asks_for_one(visit: Go, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("# none\n")
    with running_site(Pipeline(token="right"), token_file=str(tokens)) as site:
        page = visit(site.url).page
        page.fill("#token", "wrong")
        page.click("button[type=submit]")
        page.wait_for_selector("[role=alert]")
        page.fill("#token", "right")
        page.click("button[type=submit]")
        page.wait_for_selector(".drop")


def base64(data: bytes) -> str:
    import base64 as codec

    return codec.b64encode(data).decode()
