"""Videos in Chromium: upload, progress, playback, corrections, search, export."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.caption_parsers import read_srt, read_ttml, read_webvtt
from tests.web.conftest import EXAMPLES, Site, Visit, load_result, running_site, wait_until
from tests.web.pipeline import Pipeline

Visitor = Callable[..., Visit]
SHOWN_PERCENT = "document.querySelector('.steps [role=progressbar]')?.ariaValueNow"
REFERENCE = json.loads((EXAMPLES / "demo.json").read_text())


def open_job(site: Site, visit: Visitor, name: str = "demo", **context: Any) -> Any:
    """Open the page of a finished job."""
    job = site.pipeline.add(f"{name}.mp4", EXAMPLES / f"{name}.mp4", load_result(name))
    page = visit(f"{site.url}/#/jobs/{job.job_id}", **context).page
    page.wait_for_selector(".word")
    wait_until(page, "document.querySelector('video').readyState >= 2")
    return page


def word_selector(segment: int, index: int) -> str:
    return f"[data-segment='segment-{segment}'] [data-index='{index}']"


def current_time_s(page: Any) -> float:
    time_s: float = page.evaluate("document.querySelector('video').currentTime")
    return time_s


def wait_until_saved(page: Any, pipeline: Pipeline, versions: int) -> None:
    (job,) = pipeline.jobs.values()
    wait_until(
        page,
        "document.querySelector('.save').dataset.state === 'saved'",
        lambda: len(job.results) == versions,
    )


def test_words_that_a_closed_vocabulary_may_invent_are_marked(site: Site, visit: Visitor) -> None:
    result = load_result("demo")
    result["segments"][0]["words"][0]["is_doubtful"] = True
    job = site.pipeline.add("demo.mp4", EXAMPLES / "demo.mp4", result)
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    page.wait_for_selector(".word")
    mark = page.locator(".lines .doubtful")
    assert mark.all_inner_texts() == ["(?)"]
    assert page.locator("[data-segment='segment-1'] .doubtful").count() == 1
    assert "probably wrong" in str(mark.get_attribute("title"))


def test_a_dropped_video_is_uploaded_and_transcribed(visit: Visitor) -> None:
    with running_site(Pipeline(seconds=4)) as site:
        page = visit(site.url).page
        data = page.evaluate_handle(
            """async (bytes) => {
                const transfer = new DataTransfer();
                const data = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
                transfer.items.add(new File([data], "demo.mp4", { type: "video/mp4" }));
                return transfer;
            }""",
            base64.b64encode((EXAMPLES / "demo.mp4").read_bytes()).decode(),
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
    assert len(set(percents)) > 2, "progress should be shown in several steps"
    assert page.locator(".word").count() >= len([w for s in REFERENCE["sentences"] for w in s["words"]])


def test_captions_are_shown_over_the_video_while_they_are_spoken(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    for sentence in REFERENCE["sentences"]:
        first, last = sentence["words"][0], sentence["words"][-1]
        middle = (first["start_s"] + last["end_s"]) / 2
        page.evaluate(f"document.querySelector('video').currentTime = {middle}")
        wait_until(page, "!document.querySelector('video').seeking")
        caption = page.locator("[data-testid=caption]").inner_text()
        assert caption.split()[:4] == sentence["text"].split()[:4]
    page.evaluate("document.querySelector('video').currentTime = 4.0")
    wait_until(page, "!document.querySelector('[data-testid=caption]')")


def test_the_faces_of_speakers_have_boxes_of_different_colours(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit, "two_speakers")
    boxes = {}
    for segment in (1, 2):
        page.click(word_selector(segment, 2))
        box = page.locator(".box.speaking")
        box.wait_for()
        boxes[box.get_attribute("data-person")] = (
            box.bounding_box()["x"],
            box.evaluate("(element) => getComputedStyle(element).borderTopColor"),
        )
    (left_px, left_colour), (right_px, right_colour) = boxes["person-1"], boxes["person-2"]
    assert left_px + 100 < right_px
    assert left_colour != right_colour


def test_clicking_a_word_seeks_to_it(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    page.click(word_selector(3, 1))
    start_s = load_result("demo")["segments"][2]["words"][1]["start_s"]
    assert current_time_s(page) == pytest.approx(start_s, abs=0.05)
    details = page.locator(".word-card").inner_text()
    assert "white" in details
    assert "Lips and audio" in details
    assert re.search(r"\d+ %", details)


def test_clicking_a_word_before_the_video_has_loaded_seeks_afterwards(site: Site, visit: Visitor) -> None:
    job = site.pipeline.add("demo.mp4", EXAMPLES / "demo.mp4", load_result("demo"))
    page = visit(site.url).page
    held_requests: list[Any] = []
    is_holding = True
    page.route("**/store/*", lambda route: held_requests.append(route) if is_holding else route.continue_())
    page.goto(f"{site.url}/#/jobs/{job.job_id}")
    page.click(word_selector(3, 1))
    wait_until(page, "true", lambda: bool(held_requests))
    is_holding = False
    for request in held_requests:
        request.continue_()
    wait_until(page, "document.querySelector('video').readyState >= 2")
    start_s = load_result("demo")["segments"][2]["words"][1]["start_s"]
    assert current_time_s(page) == pytest.approx(start_s, abs=0.05)


def test_the_transcript_highlights_the_spoken_word(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    page.click("button[aria-label='Play']")
    wait_until(page, "document.querySelector('.word.spoken')")
    page.click("button[aria-label='Pause']")
    spoken, time_s = page.locator(".word.spoken").inner_text(), current_time_s(page)
    nearby_words = [
        w
        for s in load_result("demo")["segments"]
        for w in s["words"]
        if w["start_s"] - 0.3 <= time_s <= w["end_s"] + 0.8
    ]
    assert spoken in {w["text"] for w in nearby_words}


def test_a_correction_is_saved(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    page.dblclick(word_selector(2, 6))
    page.keyboard.type("thanks a lot")
    page.keyboard.press("Enter")
    wait_until_saved(page, site.pipeline, 2)
    page.reload()
    page.wait_for_selector(".word")
    assert (
        "place red in h nine please thanks a lot" in page.locator("[data-segment='segment-2'] p").inner_text()
    )
    (job,) = site.pipeline.jobs.values()
    corrected = job.results[-1]["segments"][1]["words"][-3:]
    assert [each["source"] for each in corrected] == ["correction"] * 3


def test_the_word_input_has_the_focus_immediately(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    focused = page.evaluate(
        """() => {
            const word = document.querySelector("button.word");
            word.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
            const next = (done) => Promise.resolve().then(() => done(document.activeElement.className));
            return new Promise((done) => Promise.resolve().then(() => next(done)));
        }"""
    )
    assert focused == "word-input"


def test_corrections_can_be_undone_and_redone(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    first = page.locator(word_selector(1, 0))
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
    wait_until_saved(page, site.pipeline, 2)


def test_renamed_speakers_appear_in_the_transcript_and_the_captions(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit, "two_speakers")
    page.click("button[aria-label='Rename Person 1']")
    page.keyboard.type("Ada <script>")
    page.keyboard.press("Enter")
    page.locator("select.speaker").nth(1).select_option("person-1")
    wait_until_saved(page, site.pipeline, 2)
    assert (
        page.locator("select.speaker").nth(1).evaluate("(e) => e.selectedOptions[0].text") == "Ada <script>"
    )
    voices = [cue.voice for cue in read_webvtt(export(page, "WebVTT"))]
    assert voices == ["Ada <script>", "Ada <script>", "Ada <script>", "Person 2"]


def test_search_moves_from_match_to_match(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    page.keyboard.press("/")
    page.keyboard.type("white")
    assert page.locator(".count").inner_text() == "1 of 2"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.locator(".count").inner_text() == "2 of 2"
    assert page.locator(".match.current").inner_text() == "white"
    assert current_time_s(page) == pytest.approx(
        load_result("demo")["segments"][4]["words"][1]["start_s"], abs=0.05
    )
    page.fill("#search", "no such word")
    assert page.locator(".count").inner_text() == "No matches"


def export(page: Any, label: str) -> str:
    page.click("summary.button")
    with page.expect_download() as download:
        page.click(f".menu button:has-text('{label}')")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert download.value.suggested_filename.split(".")[0] in {"demo", "two_speakers"}
    return text


def test_exports_contain_corrections(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    page.dblclick(word_selector(1, 0))
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    files = {label: export(page, label) for label in ("WebVTT", "SubRip", "TTML", "JSON", "Text")}
    for label, parse in (("WebVTT", read_webvtt), ("SubRip", read_srt), ("TTML", read_ttml)):
        cues = parse(files[label])
        assert " ".join(cues[0].lines).startswith("pin blue at f two now"), label
        assert cues[0].start_ms == pytest.approx(1000, abs=150)
    assert json.loads(files["JSON"])["segments"][0]["words"][0]["text"] == "pin"
    assert files["Text"].startswith("pin blue at f two now\n")


def test_the_page_is_usable_with_the_keyboard(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    page.locator(word_selector(1, 0)).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "at"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "place"
    page.keyboard.press("Enter")
    wait_until(page, "!document.querySelector('video').paused")
    page.keyboard.press("k")
    wait_until(page, "document.querySelector('video').paused")
    before = current_time_s(page)
    page.keyboard.press("l")
    assert current_time_s(page) == pytest.approx(before + 5, abs=0.5)
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open] kbd")
    assert page.locator("dialog[open] kbd").count() > 5
    page.keyboard.press("Escape")
    focused = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.keyboard.press("Tab")
        focused.add(
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
        assert control in focused


def test_a_concurrent_correction_is_not_overwritten_without_confirmation(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    (job,) = site.pipeline.jobs.values()
    job.results.append(job.results[-1])
    page.dblclick(word_selector(1, 0))
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=conflict]")
    page.click("button:text-is('Keep my version')")
    wait_until_saved(page, site.pipeline, 3)
    assert job.results[-1]["segments"][0]["words"][0]["text"] == "pin"


def test_unsaved_corrections_are_restored_after_a_reload(site: Site, visit: Visitor) -> None:
    page = open_job(site, visit)
    site.pipeline.is_down = True
    page.dblclick(word_selector(1, 0))
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=failed]")
    site.pipeline.is_down = False
    page.reload()
    page.wait_for_selector(word_selector(1, 0))
    assert page.locator(word_selector(1, 0)).inner_text() == "pin"
    wait_until_saved(page, site.pipeline, 2)


def test_a_change_is_not_lost_by_an_immediate_reload(site: Site, visit: Visitor) -> None:
    """Regression test: the draft was written after the next paint."""
    page = open_job(site, visit)
    page.dblclick(word_selector(1, 0))
    page.keyboard.type("pin")
    page.evaluate(
        """async () => {
            const enter = new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true });
            document.activeElement.dispatchEvent(enter);
            await null; // the page is rendered in a microtask
            location.reload();
        }"""
    )
    wait_until_saved(page, site.pipeline, 2)
    assert page.locator(word_selector(1, 0)).inner_text() == "pin"


def test_a_failed_job_shows_the_reason_and_can_be_retried(site: Site, visit: Visitor) -> None:
    job = site.pipeline.add("demo.mp4", EXAMPLES / "demo.mp4", load_result("demo"))
    job.failure = {"error": "InvalidMediaError", "reason": "the file is <b>not</b> a video"}
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    failure = page.locator(".failure").inner_text()
    assert "The file is <b>not</b> a video" in failure
    assert "Recognising speech" in failure, "the failed step should be shown"
    page.click(".failure button")
    page.wait_for_selector(".word")


def test_the_page_asks_for_a_token(visit: Visitor, tmp_path: Path) -> None:
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
