"""``gorggle local``: the complete product on one machine, used through its website and killed during jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gorggle_evaluation.text_normalization import normalize_words
from tests.e2e.malicious_files import write_malicious_files
from tests.sdk.caption_parsers import read_webvtt
from tests.web.conftest import ACTION_TIMEOUT_MS, record_errors, wait_until

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo.mp4"
REFERENCE = json.loads(DEMO.with_suffix(".json").read_text())
TIMEOUT_S = 300.0
PROGRESS = "document.querySelector('.steps [role=progressbar]')?.ariaValueNow"


class LocalProduct:
    """A ``gorggle local`` subprocess with its data directory and a client of its API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        self.process = start_process(self.folder)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.url = json.loads(line)["listening"].rstrip("/")

    def stop(self) -> int:
        """Stop it with SIGTERM and return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=120)
        return self.process.returncode

    def kill(self) -> None:
        """Kill all of its processes at once, as in a crash of the machine."""
        assert self.process is not None
        pids = [self.process.pid, *map(int, list_children(self.process.pid))]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def kill_server(self) -> None:
        assert self.process is not None
        (pid,) = (
            pid for pid, command in list_children(self.process.pid).items() if b"gorggle_server" in command
        )
        os.kill(int(pid), signal.SIGKILL)

    def upload(self, name: str = "demo.mp4") -> str:
        body = {"name": name, "content_type": "video/mp4", "size_bytes": DEMO.stat().st_size}
        created = requests.post(f"{self.url}/api/uploads", json=body, timeout=60).json()
        with DEMO.open("rb") as file:
            form = created["upload"]
            response = requests.post(form["url"], data=form["fields"], files={"file": file}, timeout=60)
        assert response.status_code in (200, 201, 204)
        return str(created["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = requests.get(f"{self.url}/api/jobs/{job_id}", timeout=60).json()
        return job

    def find_done_job(self) -> str:
        """Return the id of a done job, or an empty string."""
        jobs = requests.get(f"{self.url}/api/jobs", timeout=60).json()["jobs"]
        return next((str(job["job_id"]) for job in jobs if job["state"] == "done"), "")

    def wait_until_saved(self, job_id: str, state: str) -> None:
        """Wait until the saved state has the job in a state; it is saved every second if it has changed."""
        (path,) = self.folder.rglob("state.json")
        end = time.monotonic() + TIMEOUT_S
        while self._read_saved_states(path).get(job_id) != state:
            assert time.monotonic() < end, f"{path} does not have job {job_id} as {state}"
            time.sleep(0.1)

    @staticmethod
    def _read_saved_states(path: Path) -> dict[str, str]:
        (jobs,) = json.loads(path.read_text())["tables"].values()
        return {job["job_id"]["S"]: job["state"]["S"] for job in jobs if "state" in job}

    def wait_for(self, job_id: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a condition holds for the job; return the job."""
        end = time.monotonic() + TIMEOUT_S
        while not condition(job := self.job(job_id)):
            assert time.monotonic() < end, f"the condition was not met in time: {job}"
            time.sleep(0.2)
        return job

    def result(self, job_id: str) -> dict[str, Any]:
        address = f"{self.url}/api/jobs/{job_id}/result?inline=true"
        result: dict[str, Any] = requests.get(address, timeout=60).json()
        return result


def list_children(parent: int) -> dict[str, bytes]:
    """Return the command lines of a process's children by process id."""
    command_lines = {}
    for folder in Path("/proc").iterdir():
        try:
            # The process name, in parentheses, may contain any character.
            is_child = (
                folder.name.isdecimal()
                and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            )
            if is_child:
                command_lines[folder.name] = (folder / "cmdline").read_bytes()
        except OSError:
            continue
    return command_lines


def start_process(folder: Path, listen: str = "127.0.0.1:0") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gorggle", "local", "--print-ready", "--listen", listen]
    return subprocess.Popen(
        [*command, "--data-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def is_finished(job: dict[str, Any]) -> bool:
    return job["state"] in ("done", "failed")


def is_analyzing(job: dict[str, Any]) -> bool:
    assert not is_finished(job), job
    return job.get("stage") == "analyzing"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProduct]:
    running = LocalProduct(tmp_path_factory.mktemp("local"))
    running.start()
    yield running
    assert running.stop() == 0


def test_the_website_transcribes_a_video_although_the_server_is_killed(
    local: LocalProduct, browser: Any
) -> None:
    context = browser.new_context(viewport={"width": 1360, "height": 850}, locale="en-GB")
    visitor = record_errors(context.new_page())
    page = visitor.page
    page.goto(local.url)
    page.set_input_files("[data-testid=files]", str(DEMO))
    page.click("a.name:text-is('demo.mp4')", timeout=4 * ACTION_TIMEOUT_MS)
    job_id = page.url.rpartition("/")[2]
    local.wait_for(job_id, is_analyzing)
    local.kill_server()
    percents = [0]
    while (percent := page.evaluate(PROGRESS)) is not None:
        percents.append(int(percent))
        assert page.locator("[role=alert]").count() == 0
        page.wait_for_timeout(200)
    assert percents == sorted(percents)
    page.wait_for_selector("button.word", timeout=TIMEOUT_S * 1000)
    expected_words = [word["text"] for sentence in REFERENCE["sentences"] for word in sentence["words"]]
    assert list(normalize_words(" ".join(page.locator("button.word").all_inner_texts()))) == expected_words
    for sentence in REFERENCE["sentences"]:
        middle_s = (sentence["words"][0]["start_s"] + sentence["words"][-1]["end_s"]) / 2
        page.evaluate(f"document.querySelector('video').currentTime = {middle_s}")
        wait_until(page, "!document.querySelector('video').seeking")
        caption = page.locator("[data-testid=caption]").inner_text()
        assert list(normalize_words(caption))[:4] == sentence["text"].split()[:4]
    page.dblclick("button.word >> nth=0")
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    local.wait_for(job_id, lambda job: job["result_version"] == 2)
    wait_until(page, "document.querySelector('.save').dataset.state === 'saved'")
    page.reload()
    page.wait_for_selector("button.word")
    assert page.locator("button.word").first.inner_text() == "pin"
    # After the reload, the page plays the video from the pipeline's storage.
    wait_until(page, "document.querySelector('video')?.readyState >= 2")
    assert "X-Amz-Signature=" in page.evaluate("document.querySelector('video').src")
    page.click("summary.button")
    with page.expect_download() as download:
        page.click(".menu button:has-text('WebVTT')")
    cues = read_webvtt(Path(download.value.path()).read_text())
    assert cues[0].lines[0].startswith("pin blue")
    assert cues[0].start_ms == pytest.approx(1000, abs=200)
    context.close()
    assert visitor.errors == []


def test_malicious_uploads_fail_with_a_reason(local: LocalProduct, browser: Any, tmp_path: Path) -> None:
    expected_messages = write_malicious_files(tmp_path)
    renamed = "<img src=x onerror=alert(1)>.mp4"
    (tmp_path / "zip-bomb.mp4").rename(tmp_path / renamed)
    context = browser.new_context(locale="en-GB")
    visitor = record_errors(context.new_page())
    page = visitor.page
    page.goto(local.url)
    page.set_input_files("[data-testid=files]", [str(path) for path in tmp_path.iterdir()])
    rows = ".row:has(.state.failed)"
    page.wait_for_selector(f"{rows} >> nth={len(expected_messages) - 1}", timeout=TIMEOUT_S * 1000)
    messages = {
        row.locator("a.name").inner_text(): row.locator(".problem").inner_text()
        for row in page.locator(rows).all()
    }
    for name, text in expected_messages.items():
        # The API sanitises file names.
        stored_name = "img-src-x-onerror-alert-1-.mp4" if name == "zip-bomb.mp4" else name
        assert text in messages[stored_name], messages
    assert page.locator("main img, main script").count() == 0
    oversized_upload = {"name": "../../etc/passwd", "content_type": "video/mp4", "size_bytes": 10**10}
    refused = requests.post(f"{local.url}/api/uploads", json=oversized_upload, timeout=60)
    assert refused.status_code == 400
    assert "expected a whole number from 1 to 5368709120" in refused.json()["detail"]
    assert requests.get(f"{local.url}/api/health", timeout=60).json()["status"] == "ok"
    context.close()
    assert visitor.errors == []


def test_jobs_and_corrections_survive_a_kill_of_all_processes(local: LocalProduct) -> None:
    done_job = local.find_done_job() or local.upload("before.mp4")
    job = local.wait_for(done_job, is_finished)
    assert job["state"] == "done", job
    before = job["result_version"]
    # The local pipeline has no costs.
    assert {"estimate", "cost"}.isdisjoint(local.job(done_job))
    segment = local.result(done_job)["segments"][0]
    text = "pin " + segment["text"][4:]
    change = {"base_version": before, "segments": [{"id": segment["id"], "text": text}]}
    saved = requests.put(f"{local.url}/api/jobs/{done_job}/result", json=change, timeout=60)
    assert saved.status_code == 200, saved.text
    interrupted_job = local.upload("cut-off.mp4")
    unsent_upload = requests.post(
        f"{local.url}/api/uploads", json={"name": "never.mp4", "content_type": "video/mp4"}, timeout=60
    ).json()
    local.wait_for(interrupted_job, is_analyzing)
    local.wait_until_saved(interrupted_job, "running")
    local.wait_until_saved(unsent_upload["job_id"], "awaiting_upload")
    local.kill()
    local.start()
    job = local.job(done_job)
    assert (job["state"], job["result_version"]) == ("done", before + 1)
    assert local.result(done_job)["segments"][0]["text"].startswith("pin blue")
    unsent_job = local.job(unsent_upload["job_id"])
    assert unsent_job["state"] == "failed"
    assert "upload it again" in unsent_job["failure"]["reason"]
    retried = requests.post(f"{local.url}/api/jobs/{unsent_upload['job_id']}/retry", timeout=60)
    assert retried.status_code == 409
    resumed = local.wait_for(interrupted_job, is_finished)
    assert (resumed["state"], resumed["attempt"]) == ("done", 2)
    assert [
        list(normalize_words(segment["text"])) for segment in local.result(interrupted_job)["segments"]
    ] == [sentence["text"].split() for sentence in REFERENCE["sentences"]]


def test_the_openapi_document_is_served(local: LocalProduct) -> None:
    described = requests.get(f"{local.url}/openapi.json", timeout=60)
    assert described.url == f"{local.url}/api/openapi.json"
    assert described.json()["openapi"].startswith("3.1")
    unknown = requests.get(f"{local.url}/api/nothing", timeout=60)
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")


def test_the_website_has_its_configuration(local: LocalProduct) -> None:
    page = requests.get(local.url, timeout=60)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    config = requests.get(f"{local.url}/config.json", timeout=60).json()
    assert config["api"] == "/api"
    assert config["auth"] == "none"
    assert requests.get(f"{local.url}/api/jobs", timeout=60).status_code == 200


def test_requests_of_other_origins_and_hosts_are_denied(local: LocalProduct) -> None:
    for headers in ({"origin": "https://evil.example.org"}, {"host": "evil.example.org"}):
        assert requests.get(f"{local.url}/api/jobs", headers=headers, timeout=60).status_code in (403, 421)


def test_each_service_has_a_log_and_keys_and_data_are_private(local: LocalProduct) -> None:
    folder = local.folder
    logs = {path.name for path in (folder / "logs").iterdir()}
    assert logs == {"inference-server.log", "pipeline.log", "gateway.log"}
    assert {oct(path.stat().st_mode & 0o777) for path in (folder / "keys").iterdir()} == {"0o600"}
    assert oct((folder / "data").stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize("listen", ["taken", "127.0.0.1:99999", "nowhere", "192.0.2.1:80"])
def test_an_unusable_listen_address_is_reported_at_startup(
    local: LocalProduct, tmp_path: Path, listen: str
) -> None:
    process = start_process(
        tmp_path / "data", local.url.removeprefix("http://") if listen == "taken" else listen
    )
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert ("choose another address with --listen" in stderr) or ("expected HOST:PORT" in stderr)
    assert not (tmp_path / "data").exists(), "the data directory must not be created"


def test_a_data_directory_in_use_is_refused(local: LocalProduct) -> None:
    keys = {path: path.read_bytes() for path in (local.folder / "keys").iterdir()}
    process = start_process(local.folder)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is in use: stop the other Gorggle first" in stderr
    assert {path: path.read_bytes() for path in (local.folder / "keys").iterdir()} == keys
