"""Live captions in a real Chromium, whose camera and microphone play the demo clip, with a real inference server."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from tests.gateway.recordings import pcm
from tests.web.conftest import EXAMPLES, ROOT, OpenBrowser, running_site, watched

pytestmark = pytest.mark.timeout(400)
# Two cores that draw, encode, decode and read at once are not always as fast as the clip.
PATIENCE_MS = 120_000
SIZE = (480, 360)


def played(folder: Path) -> tuple[Path, Path]:
    """The demo clip as Chromium's fake devices want it: raw pictures, and sound as WAV."""
    pictures, sound = folder / "demo.y4m", folder / "demo.wav"
    with av.open(str(EXAMPLES / "demo.mp4")) as container, pictures.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420jpeg\n" % SIZE)
        for frame in container.decode(video=0):
            file.write(b"FRAME\n" + frame.reformat(*SIZE, "yuv420p").to_ndarray().tobytes())
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm())
    return pictures, sound


@pytest.fixture(scope="module")
def camera(open_browser: OpenBrowser, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pictures, sound = played(tmp_path_factory.mktemp("devices"))
    return open_browser(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={pictures}",
        f"--use-file-for-fake-audio-capture={sound}",
    )


class ReadingServer:
    """A real inference server that can be killed; it keeps its port when it starts again."""

    def __init__(self) -> None:
        self.address = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "gorggle", "serve", "--print-ready", "--exit-on-stdin-eof"]
        self._process = subprocess.Popen(
            [*command, "--listen", self.address, "--num-threads", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def wait(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self.address = json.loads(self._process.stdout.readline())["listening"]

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[ReadingServer]:
    running = ReadingServer()
    running.start()
    running.wait()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def live_url(camera: Any, server: ReadingServer) -> Iterator[str]:
    with running_site(server=server.address) as site:
        yield f"{site.url}/#/live"


def test_words_appear_outlive_a_killed_server_and_are_kept(
    camera: Any, live_url: str, server: ReadingServer
) -> None:
    context = camera.new_context(
        permissions=["camera", "microphone"], viewport={"width": 1360, "height": 850}
    )
    visit = watched(context.new_page())
    page = visit.page
    told: list[dict[str, Any]] = []
    page.on(
        "websocket",
        lambda socket: socket.on(
            "framereceived", lambda frame: told.append(json.loads(frame)) if isinstance(frame, str) else None
        ),
    )
    page.goto(live_url)
    page.click("button:text-is('Start')")
    page.wait_for_selector(".live-state.live")
    page.wait_for_selector(".final >> nth=1", timeout=PATIENCE_MS)
    assert float(page.locator(".level").get_attribute("aria-valuenow") or 0) >= 0
    right = "document.querySelector('%s').getBoundingClientRect().right"
    for inside in (".preview", ".indicators", ".choice select", ".stop"):
        assert page.evaluate(f"{right % inside} < {right % '.live-side'}"), f"{inside} lies within its card"
    server.kill()
    page.wait_for_selector(".live-state.recovering")
    before = page.locator(".final").all_inner_texts()
    server.start()
    page.wait_for_selector(".live-state.live", timeout=PATIENCE_MS)
    page.wait_for_selector(f".final >> nth={len(before)}", timeout=PATIENCE_MS)
    # Names may have come before the words, where a reader takes somebody for another person than the one before.
    after = [text.split() for text in page.locator(".final").all_inner_texts()]
    for then, now in zip(before, after, strict=False):
        assert now[-len(then.split()) :] == then.split(), "nothing is lost or said twice"
    assert page.locator("[role=alert]").count() == 0
    page.click("button:text-is('Stop')")
    page.wait_for_selector(".editor", timeout=PATIENCE_MS)
    segments = [message for message in told if message["type"] == "segment"]
    interim = {each["segment_id"] for each in segments if not each["is_final"]}
    final = {each["segment_id"] for each in segments if each["is_final"]}
    assert interim & final, "what was interim becomes final"
    truth = json.loads((EXAMPLES / "demo.json").read_text())
    said = {word["text"] for sentence in truth["sentences"] for word in sentence["words"]}
    read = [word for each in segments if each["is_final"] for word in each["text"].split()]
    assert sum(word in said for word in read) >= 0.6 * len(read), read
    assert any(message["type"] == "progress" and message["faces"] == 1 for message in told)

    page.click("button:has-text('Save this session')")
    page.wait_for_selector("button:has-text('The session is saved')")
    page.goto(live_url.replace("/live", "/"))
    page.click("#sessions ~ ul a.name")
    page.wait_for_selector(".word")
    assert page.locator(".word").count() >= len(read)
    with page.expect_download() as download:
        page.click("summary.button")
        page.click(".menu button:has-text('WebVTT')")
    assert Path(download.value.path()).read_text().startswith("WEBVTT")
    context.close()
    assert visit.faults == []


def test_somebody_without_a_camera_is_heard(camera: Any, live_url: str) -> None:
    context = camera.new_context(permissions=["microphone"])
    page = watched(context.new_page()).page
    page.goto(live_url)
    page.locator("label.choice select").first.select_option("none")
    page.click("button:text-is('Start')")
    page.wait_for_selector(".final", timeout=PATIENCE_MS)
    page.click("button:text-is('Stop')")
    page.wait_for_selector(".editor", timeout=PATIENCE_MS)
    assert page.locator(".word.sound").count() > 0
    context.close()


def test_who_permits_no_devices_is_told_what_to_do(browser: Any, live_url: str) -> None:
    context = browser.new_context()
    page = watched(context.new_page()).page
    page.goto(live_url)
    page.click("button:text-is('Start')")
    page.wait_for_selector("[role=alert]")
    assert page.locator(".live-state.idle").count() == 1
    context.close()
