"""The Pulumi program deployed to the local AWS, with the packages built for AWS and secrets from the stack's own rotation."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from gorggle_local.aws import lambda_packages
from gorggle_local.aws.pipeline import Stack
from infrastructure.packaging import build
from tests.clips import cut_demo
from tests.e2e.pipeline import Certificates, GpuServer, Pipeline, local_aws, reference_words, words
from tests.e2e.runtime import build_layer_zip, lambda_python

pytestmark = pytest.mark.timeout(1200)
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "audioEngine": "server",
    "faceEngine": "server",
    "pollIntervalS": 5,
    "transcriptionTimeoutS": 3000,
    "faceDetectionTimeoutS": 3000,
}


@dataclass
class AppliedPipeline(Pipeline):
    """Pipeline client that uses the operator's token by default."""

    token: str = ""

    def call(
        self, method: str, path: str, *, token: str | None = "operator", **kwargs: Any
    ) -> requests.Response:
        return super().call(method, path, token=self.token if token == "operator" else token, **kwargs)


def build_packages(folder: Path) -> Path:
    """Build the packages; return the list of them for ``tests.infrastructure.moto_deploy.deploy``."""
    code = {kind: package.path for kind, package in build.build_code(ROOT, folder).items()}
    layers = lambda_python().layers or {
        name: build_layer_zip(name, folder / f"{name}.zip") for name in lambda_packages.LAYERS
    }
    server = folder / "server.zip"
    with zipfile.ZipFile(server, "w") as empty:
        empty.writestr("bundle", "the server of this test runs from the working tree")
    listed = {
        "code": {kind: str(path) for kind, path in code.items()},
        "layers": {name: str(path) for name, path in layers.items()},
        "server": str(server),
    }
    path = folder / "packages.json"
    path.write_text(json.dumps(listed))
    return path


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def fetch_certificates(stack: Stack, folder: Path) -> Certificates:
    """Write the certificates of the secrets to files."""
    paths = {}
    for role in ("server_certificate", "server_client"):
        response = stack.client("secretsmanager").get_secret_value(
            SecretId=f"gorggle-local/{role}", VersionStage="AWSCURRENT"
        )
        for name, text in json.loads(response["SecretString"]).items():
            paths[f"{role}.{name}"] = folder / f"{role}.{name}.pem"
            paths[f"{role}.{name}"].write_text(text)
    names = ("server_certificate.ca", "server_certificate.certificate", "server_certificate.key")
    return Certificates(*(paths[name] for name in (*names, "server_client.certificate", "server_client.key")))


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppliedPipeline]:
    folder, port = tmp_path_factory.mktemp("applied"), free_port()
    clip = cut_demo(folder, sentence_count=3)
    with local_aws(time_scale=0.1, python=lambda_python()) as addresses:
        command = [
            sys.executable,
            "-m",
            "tests.infrastructure.moto_deploy.deploy",
            "--endpoint",
            addresses["endpoint_url"],
        ]
        command += ["--packages", str(build_packages(folder)), "--settings", json.dumps(SETTINGS)]
        command += ["--variables", json.dumps({"SERVER_ADDRESS": f"127.0.0.1:{port}"})]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        stack = Stack(addresses["endpoint_url"], "gorggle-local")
        secrets = stack.client("secretsmanager")
        token = secrets.get_secret_value(SecretId="gorggle-local/operator_token", VersionStage="AWSCURRENT")
        server = GpuServer(fetch_certificates(stack, folder), port)
        server.start()
        yield AppliedPipeline(
            addresses["api_url"], stack, server, clip, token=json.loads(token["SecretString"])["token"]
        )
        server.kill()


def test_the_deployed_stack_transcribes_a_clip(applied: AppliedPipeline) -> None:
    job_id = applied.upload(lips="av", audio="server", faces="server")
    job = applied.wait_for_job(job_id, timeout_s=600)
    assert job["state"] == "done", (job, applied.describe_failures())
    assert job["sources"] == {"lips": "used", "audio": "used", "faces": "used"}
    expected_words = set(reference_words(applied.clip))
    assert len(expected_words & set(words(applied.result(job_id)))) >= 0.8 * len(expected_words)


def test_the_pipeline_scaled_up_the_fleet(applied: AppliedPipeline) -> None:
    (group,) = applied.stack.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["DesiredCapacity"] == 1


def test_requests_need_a_token(applied: AppliedPipeline) -> None:
    assert applied.call("GET", "/jobs", token=None).status_code == 401
    assert applied.call("GET", "/jobs", token="a-guess").status_code in (401, 403)
    assert applied.call("GET", "/health", token=None).status_code == 200
