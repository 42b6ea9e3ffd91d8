"""Check a deployed stack: process the demo clip and compare the transcript with the reference.

    GORGGLE_TOKEN=… python -m infrastructure.smoke_test "$(pulumi stack output api)"

It requests the health route, uploads the clip, waits for the job, and compares the words. The exit code is 1 if anything
fails; the output names failed sources with their reasons.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# The operator's secret or the token alone. Not an argument: other users can see command lines.
TOKEN_VARIABLE = "GORGGLE_TOKEN"  # noqa: S105 - a variable's name
HTTP_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 5.0
# Starting the fleet takes some minutes, the clip itself seconds.
JOB_TIMEOUT_S = 1800.0
MIN_WORD_ACCURACY = 0.8
BOUNDARY = "gorggle-verification-" + uuid.uuid4().hex


class VerificationError(Exception):
    """A check failed; the message names it."""


@dataclass(frozen=True)
class Api:
    """Client of the stack's HTTP API."""

    url: str
    token: str

    def call(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON response.

        Raises:
            VerificationError: the request fails.
        """
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        body = None if document is None else json.dumps(document).encode()
        response: dict[str, Any] = json.loads(
            send_request(f"{self.url.rstrip('/')}{path}", method, headers, body, f"{method} {path}")
        )
        return response


def send_request(
    url: str, method: str, headers: Mapping[str, str], body: bytes | None, description: str
) -> bytes:
    """Return the response body.

    Raises:
        VerificationError: the request fails.
    """
    if not url.startswith(("https://", "http://")):
        raise VerificationError(f"{url!r} is not a URL: use the stack output `api`")
    request = urllib.request.Request(url, body, dict(headers), method=method)  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as response:  # noqa: S310 - checked above
            content: bytes = response.read()
    except urllib.error.HTTPError as error:
        with error:
            body_text = error.read().decode(errors="replace")[:500]
        raise VerificationError(f"{description} returned {error.code}: {body_text}") from error
    except (urllib.error.URLError, OSError) as error:
        raise VerificationError(f"{description} failed: {error}") from error
    return content


def verify(api: Api, clip: Path, truth: Path, timeout_s: float = JOB_TIMEOUT_S) -> Iterator[str]:
    """Run the checks and yield a line for each.

    Raises:
        VerificationError: a check failed.
    """
    health = api.call("GET", "/health")
    yield f"health: {health['status']}, {health['running_jobs']} jobs running"
    job_id = upload(api, clip)
    yield f"uploaded {clip.name} as job {job_id}"
    began = time.monotonic()
    job = wait_for_job(api, job_id, began + timeout_s)
    yield f"{job['state']} after {time.monotonic() - began:.0f} s, {format_costs(job)}"
    if job["state"] != "done":
        raise VerificationError(f"the job failed: {job['failure']['reason']}")
    yield "sources: " + ", ".join(f"{name} {state}" for name, state in sorted(job["sources"].items()))
    result = api.call("GET", f"/jobs/{job_id}/result?inline=true")
    words = [word["text"].lower() for segment in result["segments"] for word in segment["words"]]
    reference = reference_words(truth)
    accuracy = word_accuracy(words, reference)
    yield f"words: {accuracy:.0%} of {len(reference)} correct: {' '.join(words)}"
    if failed := sorted(name for name, state in job["sources"].items() if state == "failed"):
        reasons = "; ".join(each["reason"] for name in failed for each in result["sources"][name]["failures"])
        raise VerificationError(f"failed sources: {', '.join(failed)} ({reasons})")
    if accuracy < MIN_WORD_ACCURACY:
        raise VerificationError(
            f"only {accuracy:.0%} of the words are correct; expected {MIN_WORD_ACCURACY:.0%}"
        )


def upload(api: Api, clip: Path) -> str:
    """Upload a clip like the website and return the job id."""
    created = api.call("POST", "/uploads", {"name": clip.name, "content_type": "video/mp4"})
    form = created["upload"]
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    send_request(form["url"], form["method"], headers, encode_form(form["fields"], clip), "the upload to S3")
    return str(created["job_id"])


def encode_form(fields: Mapping[str, str], clip: Path) -> bytes:
    """Return the multipart body: S3 requires the file after all fields."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{clip.name}"\r\n\r\n'
    return b"".join([*parts, head.encode(), clip.read_bytes(), f"\r\n--{BOUNDARY}--\r\n".encode()])


def wait_for_job(api: Api, job_id: str, deadline: float) -> dict[str, Any]:
    """Wait for the end of a job and return it.

    Raises:
        VerificationError: the deadline has passed.
    """
    while (job := api.call("GET", f"/jobs/{job_id}"))["state"] not in ("done", "failed"):
        if time.monotonic() > deadline:
            raise VerificationError(
                f"timeout: the job is still {job['state']} ({job.get('stage')}); see its execution"
            )
        time.sleep(POLL_INTERVAL_S)
    return job


def format_costs(job: Mapping[str, Any]) -> str:
    """Return the estimated and the actual costs of a job."""
    sums = [(name, job.get(key)) for name, key in (("estimated", "estimate"), ("cost", "cost"))]
    return (
        ", ".join(f"{name} {found['total']:.4f} USD" for name, found in sums if found) or "no costs reported"
    )


def reference_words(truth: Path) -> list[str]:
    """Return the words of a reference transcript."""
    sentences = json.loads(truth.read_text())["sentences"]
    return [word for sentence in sentences for word in sentence["text"].lower().split()]


def word_accuracy(words: Sequence[str], reference: Sequence[str]) -> float:
    """Return the share of the reference words that were found in order."""
    matcher = difflib.SequenceMatcher(a=words, b=reference, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) / len(reference)


def parse_token(text: str) -> str:
    """Return the token, from the operator's secret or given alone."""
    return str(json.loads(text)["token"]) if text.lstrip().startswith("{") else text.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infrastructure.smoke_test", description=__doc__)
    parser.add_argument("api", help="URL of the API: the stack output `api`")
    parser.add_argument("--clip", type=Path, default=EXAMPLES / "demo.mp4")
    parser.add_argument(
        "--truth", type=Path, default=EXAMPLES / "demo.json", help="reference transcript of the clip"
    )
    options = parser.parse_args(arguments)
    if not os.environ.get(TOKEN_VARIABLE):
        parser.error(f"set {TOKEN_VARIABLE} to the operator's token (docs/aws.md, Deploy)")
    try:
        for line in verify(
            Api(options.api, parse_token(os.environ[TOKEN_VARIABLE])), options.clip, options.truth
        ):
            print(line, flush=True)
    except VerificationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("all checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
