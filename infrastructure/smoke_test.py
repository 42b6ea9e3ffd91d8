"""Sends a clip whose words are known through a stack that has been built, and says whether everything did its part.

    GORGGLE_TOKEN=… python -m infrastructure.smoke_test "$(pulumi stack output api)"

It looks at the health route, sends the demo clip as a browser would, waits, and compares the words. The exit code is 1
where something is wrong; what was lost on the way, and why, is in what it writes.
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
# As the operator's secret holds it, or the token alone: a command line is seen by all of a machine.
TOKEN_VARIABLE = "GORGGLE_TOKEN"  # noqa: S105 - a variable's name
TIMEOUT_S = 60.0
POLL_INTERVAL_S = 5.0
# A sleeping fleet takes some minutes to come; the clip itself takes seconds.
TIMEOUT_S = 1800.0
MIN_WORD_ACCURACY = 0.8
BOUNDARY = "gorggle-verification-" + uuid.uuid4().hex


class VerificationError(Exception):
    """Something of the stack does not do its part; the message says what."""


@dataclass(frozen=True)
class Api:
    """The HTTP API of a stack, as its caller sees it."""

    url: str
    token: str

    def call(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer's JSON.

        Raises:
            VerificationError: it is no success.
        """
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        body = None if document is None else json.dumps(document).encode()
        answer: dict[str, Any] = json.loads(
            send_request(f"{self.url.rstrip('/')}{path}", method, headers, body, f"{method} {path}")
        )
        return answer


def send_request(
    url: str, method: str, headers: Mapping[str, str], body: bytes | None, description: str
) -> bytes:
    """What an address answers.

    Raises:
        VerificationError: it refuses, or does not answer.
    """
    if not url.startswith(("https://", "http://")):
        raise VerificationError(f"{url!r} is no address: give the output `api` of the stack")
    request = urllib.request.Request(url, body, dict(headers), method=method)  # noqa: S310 - looked at above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - likewise
            content: bytes = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode(errors="replace")[:500]
        raise VerificationError(f"{description} answers {error.code}: {said}") from error
    except (urllib.error.URLError, OSError) as error:
        raise VerificationError(f"{description} cannot be reached: {error}") from error
    return content


def verify(api: Api, clip: Path, truth: Path, timeout_s: float = TIMEOUT_S) -> Iterator[str]:
    """Do it, and tell step by step.

    Raises:
        VerificationError: something is wrong.
    """
    health = api.call("GET", "/health")
    yield f"health: {health['status']}, {health['running_jobs']} jobs are running"
    job_id = upload(api, clip)
    yield f"sent {clip.name} as job {job_id}"
    began = time.monotonic()
    job = wait_for_job(api, job_id, began + timeout_s)
    yield f"{job['state']} after {time.monotonic() - began:.0f} s, {format_costs(job)}"
    if job["state"] != "done":
        raise VerificationError(f"the job failed: {job['failure']['reason']}")
    yield "sources: " + ", ".join(f"{name} {state}" for name, state in sorted(job["sources"].items()))
    result = api.call("GET", f"/jobs/{job_id}/result?inline=true")
    found = [word["text"].lower() for segment in result["segments"] for word in segment["words"]]
    said = reference_words(truth)
    share = word_accuracy(found, said)
    yield f"words: {share:.0%} of {len(said)} as the truth has them: {' '.join(found)}"
    if lost := sorted(name for name, state in job["sources"].items() if state == "failed"):
        why = "; ".join(each["reason"] for name in lost for each in result["sources"][name]["failures"])
        raise VerificationError(f"lost: {', '.join(lost)} ({why})")
    if share < MIN_WORD_ACCURACY:
        raise VerificationError(f"only {share:.0%} of the words agree; {MIN_WORD_ACCURACY:.0%} were expected")


def upload(api: Api, clip: Path) -> str:
    """Send a clip as a browser's form would; the job's name."""
    asked = api.call("POST", "/uploads", {"name": clip.name, "content_type": "video/mp4"})
    form = asked["upload"]
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    send_request(form["url"], form["method"], headers, encode_form(form["fields"], clip), "the upload to S3")
    return str(asked["job_id"])


def encode_form(fields: Mapping[str, str], clip: Path) -> bytes:
    """The form's fields, and the file behind them, as S3 wants it."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{clip.name}"\r\n\r\n'
    return b"".join([*parts, head.encode(), clip.read_bytes(), f"\r\n--{BOUNDARY}--\r\n".encode()])


def wait_for_job(api: Api, job_id: str, deadline: float) -> dict[str, Any]:
    """The job, once it has ended.

    Raises:
        VerificationError: it has not by then.
    """
    while (job := api.call("GET", f"/jobs/{job_id}"))["state"] not in ("done", "failed"):
        if time.monotonic() > deadline:
            raise VerificationError(
                f"the job is still {job['state']} ({job.get('stage')}): look at its execution"
            )
        time.sleep(POLL_INTERVAL_S)
    return job


def format_costs(job: Mapping[str, Any]) -> str:
    """What the job was thought to cost, and what it did."""
    sums = [(name, job.get(key)) for name, key in (("estimated", "estimate"), ("cost", "cost"))]
    return ", ".join(f"{name} {found['total']:.4f} USD" for name, found in sums if found) or "no costs told"


def reference_words(truth: Path) -> list[str]:
    """The words that are said in a clip."""
    sentences = json.loads(truth.read_text())["sentences"]
    return [word for sentence in sentences for word in sentence["text"].lower().split()]


def word_accuracy(words: Sequence[str], reference: Sequence[str]) -> float:
    """The share of words that were found in their order."""
    matcher = difflib.SequenceMatcher(a=words, b=reference, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) / len(reference)


def parse_token(text: str) -> str:
    """The token, alone or in the operator's secret."""
    return str(json.loads(text)["token"]) if text.lstrip().startswith("{") else text.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infrastructure.smoke_test", description=__doc__)
    parser.add_argument("api", help="address of the API: the stack's output `api`")
    parser.add_argument("--clip", type=Path, default=EXAMPLES / "demo.mp4")
    parser.add_argument("--truth", type=Path, default=EXAMPLES / "demo.json", help="what is said in it")
    options = parser.parse_args(arguments)
    if not os.environ.get(TOKEN_VARIABLE):
        parser.error(f"{TOKEN_VARIABLE} is not set: give the operator's token there (docs/aws.md, Deploy)")
    try:
        for line in verify(
            Api(options.api, parse_token(os.environ[TOKEN_VARIABLE])), options.clip, options.truth
        ):
            print(line, flush=True)
    except VerificationError as error:
        print(f"wrong: {error}", file=sys.stderr)
        return 1
    print("all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
