"""``gorggle local``: the whole product with one command, used through its page's address."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo.mp4"


def started(folder: Path, listen: str = "127.0.0.1:0") -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "gorggle",
        "local",
        "--announce",
        "--listen",
        listen,
        "--folder",
        str(folder),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def ended(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    return process.returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    process = started(folder)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    yield json.loads(line)["listening"].rstrip("/")
    assert ended(process) == 0


def test_a_video_is_uploaded_read_corrected_and_exported(url: str) -> None:
    body = {"name": "demo.mp4", "content_type": "video/mp4", "size_bytes": DEMO.stat().st_size}
    made = requests.post(f"{url}/api/uploads", json=body, timeout=60).json()
    with DEMO.open("rb") as file:
        sent = requests.post(
            made["upload"]["url"], data=made["upload"]["fields"], files={"file": file}, timeout=60
        )
    assert sent.status_code in (200, 201, 204)
    job = finished(url, made["job_id"])
    assert job["state"] == "done", job
    address = f"{url}/api/jobs/{made['job_id']}/result"
    result = requests.get(f"{address}?inline=true", timeout=60).json()
    truth = json.loads(DEMO.with_suffix(".json").read_text())
    assert result["segments"][0]["text"] == truth["sentences"][0]["text"]
    first = result["segments"][0]
    change = {
        "base_version": job["result_version"],
        "segments": [{"id": first["id"], "text": "pin " + first["text"][4:]}],
    }
    assert requests.put(address, json=change, timeout=60).status_code == 200
    vtt = requests.get(f"{address}?format=vtt&inline=true", timeout=60).text
    assert vtt.startswith("WEBVTT")
    assert "pin blue" in vtt


def finished(url: str, job_id: str) -> dict[str, Any]:
    end = time.monotonic() + 400
    while time.monotonic() < end:
        job: dict[str, Any] = requests.get(f"{url}/api/jobs/{job_id}", timeout=60).json()
        if job["state"] in ("done", "failed"):
            return job
        time.sleep(1)
    raise AssertionError(f"the job did not end: {job}")


def test_the_page_knows_where_everything_is(url: str) -> None:
    page = requests.get(url, timeout=60)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    config = requests.get(f"{url}/config.json", timeout=60).json()
    assert config["api"] == "/api"
    assert config["auth"] == "none"
    assert requests.get(f"{url}/api/jobs", timeout=60).status_code == 200


def test_pages_of_others_are_kept_away(url: str) -> None:
    for headers in ({"origin": "https://evil.example.org"}, {"host": "evil.example.org"}):
        assert requests.get(f"{url}/api/jobs", headers=headers, timeout=60).status_code in (403, 421)


def test_each_service_has_a_log_and_keys_are_private(url: str, folder: Path) -> None:
    assert {path.name for path in (folder / "logs").iterdir()} == {
        "inference-server.log",
        "pipeline.log",
        "gateway.log",
    }
    assert {oct(path.stat().st_mode & 0o777) for path in (folder / "keys").iterdir()} == {"0o600"}


def test_a_port_that_is_taken_is_said_and_nothing_is_left_behind(url: str, tmp_path: Path) -> None:
    process = started(tmp_path, url.removeprefix("http://"))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "gateway ended" in said
    assert "in use" in said
