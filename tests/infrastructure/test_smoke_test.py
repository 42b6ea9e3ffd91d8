"""Tests of the smoke test command against a fake API; the end-to-end tests run it against a working stack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infrastructure import smoke_test
from infrastructure.smoke_test import VerificationError

EXAMPLES = smoke_test.EXAMPLES
WORDS = smoke_test.reference_words(EXAMPLES / "demo.json")


class FakeApi:
    """A fake API."""

    def __init__(self, job: Mapping[str, Any], words: list[str], failures: list[dict[str, str]]) -> None:
        self.job, self.words, self.failures = job, words, failures

    def call(self, method: str, path: str, document: Any = None) -> dict[str, Any]:
        match method, path.partition("?")[0]:
            case "GET", "/health":
                return {"status": "ok", "running_jobs": 0}
            case "POST", "/uploads":
                return {"job_id": "j", "upload": {"url": "http://s3", "method": "POST", "fields": {}}}
            case "GET", "/jobs/j":
                return dict(self.job)
        segments = [{"words": [{"text": word} for word in self.words]}]
        return {
            "segments": segments,
            "sources": {name: {"failures": self.failures} for name in ("lips", "audio")},
        }


def run_checks(
    monkeypatch: pytest.MonkeyPatch, job: Mapping[str, Any], words: list[str] = WORDS, reason: str = ""
) -> list[str]:
    monkeypatch.setattr(smoke_test, "send_request", lambda *_: b"")
    api: Any = FakeApi(job, words, [{"reason": reason}])
    return list(smoke_test.verify(api, EXAMPLES / "demo.mp4", EXAMPLES / "demo.json", timeout_s=0.0))


GOOD = {"state": "done", "sources": {"lips": "used", "audio": "used"}, "cost": {"total": 0.01}}


def test_a_correct_transcript_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run_checks(monkeypatch, GOOD)
    assert lines[-1].startswith("words: 100% of")
    assert "cost 0.0100 USD" in lines[2]


@pytest.mark.parametrize(
    ("job", "words", "message"),
    [
        ({"state": "running", "stage": "analyzing"}, WORDS, "still running"),
        ({"state": "failed", "failure": {"reason": "no fleet"}}, WORDS, "the job failed: no fleet"),
        ({**GOOD, "sources": {"lips": "failed", "audio": "used"}}, WORDS, r"failed sources: lips \(no GPU\)"),
        (GOOD, WORDS[: len(WORDS) // 2], "only 50% of the words are correct"),
    ],
)
def test_failures_are_reported(
    monkeypatch: pytest.MonkeyPatch, job: Mapping[str, Any], words: list[str], message: str
) -> None:
    with pytest.raises(VerificationError, match=message):
        run_checks(monkeypatch, job, words, "no GPU")


def test_an_unreachable_api_is_reported() -> None:
    with pytest.raises(VerificationError, match="GET /health failed"):
        smoke_test.Api("http://127.0.0.1:9", "t").call("GET", "/health")
    with pytest.raises(VerificationError, match="is not a URL"):
        smoke_test.Api("file:///etc", "t").call("GET", "/health")


def test_a_token_is_parsed_alone_or_from_its_secret() -> None:
    assert smoke_test.parse_token(" abc\n") == "abc"
    assert smoke_test.parse_token(json.dumps({"token": "abc"})) == "abc"


def test_a_missing_token_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GORGGLE_TOKEN", raising=False)
    with pytest.raises(SystemExit):
        smoke_test.main(["https://api.example.org"])
    assert "set GORGGLE_TOKEN" in capsys.readouterr().err


def test_the_fields_of_a_form_precede_the_file(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"video")
    body = smoke_test.encode_form({"key": "uploads/a", "Content-Type": "video/mp4"}, clip)
    assert body.index(b"uploads/a") < body.index(b"video/mp4") < body.index(b'name="file"')
    assert body.endswith(f"video\r\n--{smoke_test.BOUNDARY}--\r\n".encode())
