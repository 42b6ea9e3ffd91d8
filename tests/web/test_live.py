"""Live captions in Chromium with an inference server; fake camera and microphone devices play the demo clip."""

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

from gorggle_evaluation.text_normalization import normalize_words
from tests.gateway.recordings import pcm
from tests.web.conftest import EXAMPLES, ROOT, OpenBrowser, record_errors, running_site

pytestmark = pytest.mark.timeout(400)
# Rendering, encoding, decoding and recognition on two cores can be slower than real time.
CAPTION_TIMEOUT_MS = 120_000
SIZE = (480, 360)


def write_device_files(folder: Path) -> tuple[Path, Path]:
    """Write the demo clip as Chromium's fake devices need it: raw video (Y4M) and WAV."""
    video, audio = folder / "demo.y4m", folder / "demo.wav"
    with av.open(str(EXAMPLES / "demo.mp4")) as container, video.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420jpeg\n" % SIZE)
        for frame in container.decode(video=0):
            file.write(b"FRAME\n" + frame.reformat(*SIZE, "yuv420p").to_ndarray().tobytes())
    with wave.open(str(audio), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm())
    return video, audio


@pytest.fixture(scope="module")
def camera(open_browser: OpenBrowser, tmp_path_factory: pytest.TempPathFactory) -> Any:
    video, audio = write_device_files(tmp_path_factory.mktemp("devices"))
    return open_browser(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
        f"--use-file-for-fake-audio-capture={audio}",
    )


class InferenceServer:
    """An inference server in a subprocess that can be killed and restarted on the same port."""

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

    def wait_until_ready(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self.address = json.loads(self._process.stdout.readline())["listening"]

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[InferenceServer]:
    inference_server = InferenceServer()
    inference_server.start()
    inference_server.wait_until_ready()
    yield inference_server
    inference_server.kill()


@pytest.fixture(scope="module")
def live_url(camera: Any, server: InferenceServer) -> Iterator[str]:
    with running_site(server=server.address) as site:
        yield f"{site.url}/#/live"


def test_captions_survive_a_killed_server_and_can_be_saved(
    camera: Any, live_url: str, server: InferenceServer
) -> None:
    context = camera.new_context(
        permissions=["camera", "microphone"], viewport={"width": 1360, "height": 850}
    )
    visit = record_errors(context.new_page())
    page = visit.page
    messages: list[dict[str, Any]] = []
    page.on(
        "websocket",
        lambda socket: socket.on(
            "framereceived",
            lambda frame: messages.append(json.loads(frame)) if isinstance(frame, str) else None,
        ),
    )
    page.goto(live_url)
    page.click("button:text-is('Start')")
    page.wait_for_selector(".live-state.live")
    page.wait_for_selector(".final >> nth=1", timeout=CAPTION_TIMEOUT_MS)
    assert float(page.locator(".level").get_attribute("aria-valuenow") or 0) >= 0
    right = "document.querySelector('%s').getBoundingClientRect().right"
    for inside in (".preview", ".indicators", ".choice select", ".stop"):
        assert page.evaluate(f"{right % inside} < {right % '.live-side'}"), f"{inside} overflows its card"
    server.kill()
    page.wait_for_selector(".live-state.recovering")
    before = page.locator(".final").all_inner_texts()
    server.start()
    page.wait_for_selector(".live-state.live", timeout=CAPTION_TIMEOUT_MS)
    page.wait_for_selector(f".final >> nth={len(before)}", timeout=CAPTION_TIMEOUT_MS)
    # Speaker names may precede the text if the new server assigned another speaker than the old one.
    after = [text.split() for text in page.locator(".final").all_inner_texts()]
    for old, new in zip(before, after, strict=False):
        assert new[-len(old.split()) :] == old.split(), "captions were lost or repeated"
    assert page.locator("[role=alert]").count() == 0
    page.click("button:text-is('Stop')")
    page.wait_for_selector(".editor", timeout=CAPTION_TIMEOUT_MS)
    segments = [message for message in messages if message["type"] == "segment"]
    interim = {each["segment_id"] for each in segments if not each["is_final"]}
    final = {each["segment_id"] for each in segments if each["is_final"]}
    assert interim & final, "no interim segment became final"
    ground_truth = json.loads((EXAMPLES / "demo.json").read_text())
    reference = {word["text"] for sentence in ground_truth["sentences"] for word in sentence["words"]}
    # The second model adds capitals and full stops.
    words = [word for each in segments if each["is_final"] for word in normalize_words(each["text"])]
    assert sum(word in reference for word in words) >= 0.6 * len(words), words
    assert any(message["type"] == "progress" and message["faces"] == 1 for message in messages)

    page.click("button:has-text('Save this session')")
    page.wait_for_selector("button:has-text('The session is saved')")
    page.goto(live_url.replace("/live", "/"))
    page.click("#sessions ~ ul a.name")
    page.wait_for_selector(".word")
    assert page.locator(".word").count() >= len(words)
    with page.expect_download() as download:
        page.click("summary.button")
        page.click(".menu button:has-text('WebVTT')")
    assert Path(download.value.path()).read_text().startswith("WEBVTT")
    context.close()
    assert visit.errors == []


def test_captions_are_shown_without_a_camera(camera: Any, live_url: str) -> None:
    context = camera.new_context(permissions=["microphone"])
    visit = record_errors(context.new_page())
    page = visit.page
    page.goto(live_url)
    page.locator("label.choice select").first.select_option("none")
    page.click("button:text-is('Start')")
    page.wait_for_selector(".final", timeout=CAPTION_TIMEOUT_MS)
    page.click("button:text-is('Stop')")
    page.wait_for_selector(".editor", timeout=CAPTION_TIMEOUT_MS)
    assert page.locator(".word.audio").count() > 0
    context.close()
    assert visit.errors == []


def test_denied_permissions_show_an_error(browser: Any, live_url: str) -> None:
    context = browser.new_context()
    visit = record_errors(context.new_page())
    page = visit.page
    page.goto(live_url)
    page.click("button:text-is('Start')")
    page.wait_for_selector("[role=alert]")
    assert page.locator(".live-state.idle").count() == 1
    context.close()
    assert visit.errors == []
