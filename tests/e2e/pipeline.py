"""The pipeline deployed to the local AWS with a real server, with fault injection."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import trustme

from gorggle_evaluation.text_normalization import normalize_words
from gorggle_local.aws.pipeline import Server, Stack, deploy
from tests.clips import DEMO, EXAMPLES
from tests.e2e.runtime import LambdaPython, lambda_python

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-for-tests"
SERVER_NAME = "gorggle.internal"


@dataclass(frozen=True)
class Certificates:
    """Files for both sides of mutual TLS."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def create_certificates(folder: Path) -> Certificates:
    ca = trustme.CA()
    server, client = ca.issue_cert(SERVER_NAME), ca.issue_cert("lambda.gorggle.internal")
    paths = Certificates(*(folder / name for name in ("ca.pem", "s.pem", "s.key", "c.pem", "c.key")))
    ca.cert_pem.write_to_path(paths.ca)
    server.cert_chain_pems[0].write_to_path(paths.server)
    server.private_key_pem.write_to_path(paths.server_key)
    client.cert_chain_pems[0].write_to_path(paths.client)
    client.private_key_pem.write_to_path(paths.client_key)
    return paths


class GpuServer:
    """``gorggle serve`` with mutual TLS in a subprocess; it keeps its port after a restart."""

    def __init__(self, certificates: Certificates, port: int = 0) -> None:
        self._certificates = certificates
        self.port = port
        self._process: subprocess.Popen[str] | None = None

    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, "-m", "gorggle", "serve", "--print-ready", "--exit-on-stdin-eof"]
        command += [
            "--listen",
            f"127.0.0.1:{self.port}",
            "--num-threads",
            "1",
            "--shutdown-grace-period-s",
            "1",
        ]
        command += [
            "--tls-certificate",
            self._certificates.server,
            "--tls-key",
            self._certificates.server_key,
        ]
        command += ["--tls-client-ca", self._certificates.ca]
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        if wait:
            self.wait()

    def wait(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.port = int(json.loads(line)["listening"].rpartition(":")[2])

    def kill(self) -> None:
        """Kill the server, like a spot interruption."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """Stop the process; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def local_aws(
    time_scale: float = 1.0, reference_folder: Path = EXAMPLES, python: LambdaPython | None = None
) -> Iterator[dict[str, str]]:
    """Run the local AWS in a subprocess; yield its URLs. ``python``: for the functions; None: the current one."""
    command = [
        sys.executable,
        "-m",
        "tests.e2e.emulator",
        "--truth",
        str(reference_folder),
        "--time-scale",
        str(time_scale),
    ]
    command += python.options if python else ()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@dataclass
class Pipeline:
    """Client of the pipeline's API, with access to its resources. ``clip`` is uploaded by default."""

    api_url: str
    stack: Stack
    server: GpuServer
    clip: Path = DEMO
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, *, token: str | None = TOKEN, **kwargs: Any) -> requests.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        headers |= kwargs.pop("headers", {})
        return self.session.request(
            method, self.api_url + path, headers=headers, allow_redirects=False, timeout=60, **kwargs
        )

    def request_upload(self, name: str = "demo.mp4", **options: str) -> dict[str, Any]:
        body = {"name": name, "content_type": "video/mp4", "options": options}
        response = self.call("POST", "/uploads", json=body)
        assert response.status_code == 201, response.text
        created: dict[str, Any] = response.json()
        return created

    def send(self, upload: dict[str, Any], content: bytes) -> None:
        response = requests.post(
            upload["upload"]["url"], data=upload["upload"]["fields"], files={"file": content}, timeout=60
        )
        assert response.status_code in (200, 204), response.text

    def upload(self, path: Path | None = None, **options: str) -> str:
        """Upload a video and return the job id."""
        path = path or self.clip
        created = self.request_upload(path.name, **options)
        self.send(created, path.read_bytes())
        return str(created["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        response = self.call("GET", f"/jobs/{job_id}")
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    def wait_for_job(self, job_id: str, timeout_s: float = 300.0) -> dict[str, Any]:
        """Wait until the job is done or failed, and return it."""
        end = time.monotonic() + timeout_s
        while (job := self.job(job_id))["state"] not in ("done", "failed"):
            assert time.monotonic() < end, f"the job is still {job}\n{self.describe_failures()}"
            time.sleep(0.2)
        return job

    def result(self, job_id: str) -> dict[str, Any]:
        response = self.call("GET", f"/jobs/{job_id}/result?inline=true")
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    def inject_faults(self, *faults: dict[str, Any]) -> None:
        """Inject faults; without arguments, remove all."""
        requests.post(f"{self.api_url}/_local/faults", json=list(faults), timeout=10)

    def configure(self, function: str, **variables: str) -> None:
        """Change environment variables of a function."""
        client, name = self.stack.client("lambda"), f"{self.stack.name}-{function}"
        before = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(
            FunctionName=name, Environment={"Variables": {**before, **variables}}
        )

    def invocations(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = requests.get(f"{self.api_url}/_local/logs", timeout=10).json()
        return entries

    def describe_failures(self) -> str:
        """Describe the last failed invocations, for assertion messages."""
        failed = [entry for entry in self.invocations() if entry["is_error"]][-3:]
        return "\n".join(f"{e['function']}: {e['payload']}\n" + "\n".join(e["log"][-8:]) for e in failed)

    def list_job_objects(self, job_id: str) -> list[str]:
        """Return the keys of a job in the results bucket."""
        pages = self.stack.client("s3").list_objects_v2(
            Bucket=self.stack["bucket:results"], Prefix=f"jobs/{job_id}/"
        )
        return [item["Key"].removeprefix(f"jobs/{job_id}/") for item in pages.get("Contents", [])]

    def item(self, job_id: str) -> dict[str, Any]:
        """Return the job's item in DynamoDB."""
        response = self.stack.client("dynamodb").get_item(
            TableName=self.stack["table:jobs"], Key={"job_id": {"S": job_id}}, ConsistentRead=True
        )
        item: dict[str, Any] = response["Item"]
        return item

    def executions(self) -> list[dict[str, Any]]:
        response = self.stack.client("stepfunctions").list_executions(
            stateMachineArn=self.stack["state_machine"]
        )
        executions: list[dict[str, Any]] = response["executions"]
        return executions


@contextlib.contextmanager
def running_pipeline(
    folder: Path,
    server: GpuServer,
    certificates: Certificates,
    *,
    time_scale: float = 1.0,
    server_port: int = 0,
    clip: Path = DEMO,
    **settings: Any,
) -> Iterator[Pipeline]:
    """Deploy the pipeline to a local AWS.

    Args:
        server_port: the server's port as seen by the functions, if different.
        clip: the video to upload by default; its reference transcript is beside it.
    """
    python = lambda_python()
    with local_aws(time_scale, clip.parent, python) as addresses:
        stack = deploy(
            addresses["endpoint_url"],
            Server(
                f"127.0.0.1:{server_port or server.port}",
                SERVER_NAME,
                certificates.ca.read_text(),
                certificates.client.read_text(),
                certificates.client_key.read_text(),
            ),
            {"ada": hashlib.sha256(TOKEN.encode()).hexdigest()},
            {"poll_interval_s": 1, **settings},
            layers=python.layers,
        )
        yield Pipeline(addresses["api_url"], stack, server, clip)


def reference_words(clip: Path = DEMO) -> list[str]:
    """Return the words of a clip's reference transcript."""
    sentences = json.loads(clip.with_suffix(".json").read_text())["sentences"]
    return [word for sentence in sentences for word in sentence["text"].split()]


def words(result: dict[str, Any]) -> list[str]:
    """Return the words of a result in lower case, without punctuation."""
    return [
        text
        for segment in result["segments"]
        for word in segment["words"]
        for text in normalize_words(word["text"])
    ]
