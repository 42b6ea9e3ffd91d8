"""Tests of the bootstrap of an instance: the published bundle, ``bootstrap.sh``, and the server that it installs.

The instance is simulated: the AMI's Python has only torch, and commands such as ``systemctl``, ``useradd`` and ``aws`` only
log their arguments. The tests then run the command of the systemd unit with the unit's environment.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from gorggle_lambdas.operations import certificate_authority
from infrastructure.config import StackSettings
from infrastructure.gpu_fleet import instance_environment, render_user_data
from infrastructure.naming import Names
from infrastructure.packaging import build
from infrastructure.packaging.wheels import Target

# Packages are downloaded and installed.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "examples" / "demo.mp4"
NAMES = Names("test", "123456789012", "us-east-1")
# torch and its dependencies, which the AMI provides.
AMI_PACKAGES = (
    *("torch", "torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"),
    *("filelock", "fsspec", "typing_extensions.py"),
)
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
UNITS = ("gorggle.service", "gorggle-agent.service")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has only torch, as in the AMI."""
    folder = tmp_path_factory.mktemp("image")
    venv.create(folder, with_pip=False)
    packages = folder / "lib" / f"python{MINOR}" / "site-packages"
    import torch

    installed_packages = Path(torch.__file__).parents[1]
    for name in AMI_PACKAGES:
        if (installed_packages / name).exists():
            (packages / name).symlink_to(installed_packages / name)
    for metadata in installed_packages.glob("torch-*.dist-info"):
        (packages / metadata.name).symlink_to(metadata)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def secrets() -> Iterator[str]:
    """Yield the URL of a Secrets Manager with the server's certificates."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def identities(secrets: str) -> tuple[certificate_authority.Identity, certificate_authority.Identity]:
    import dataclasses
    import datetime as dt

    now = dt.datetime.now(dt.UTC)
    authorities = [certificate_authority.create_authority("Gorggle", now)]
    server = certificate_authority.issue_identity(
        authorities, "server.gorggle.internal", is_server=True, now=now
    )
    client = boto3.client(
        "secretsmanager", endpoint_url=secrets, region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip
    client.create_secret(Name="server", SecretString=json.dumps(dataclasses.asdict(server)))
    return server, certificate_authority.issue_identity(authorities, "pipeline", is_server=False, now=now)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def bootstrapped(
    image: Path, secrets: str, identities: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str], list[str]]:
    """Bootstrap an instance; return its root folder, its environment and the logged commands."""
    root = tmp_path_factory.mktemp("instance")
    package = build.build_server_bundle(
        ROOT, ROOT / ".build" / "packages", (Target("x86_64", MINOR),), name=f"server-{MINOR}-{os.getpid()}"
    )
    with zipfile.ZipFile(package.path) as archive:
        archive.extractall(root / "opt/gorggle/bundle")
    package.path.unlink()
    variables = {
        **instance_environment(
            NAMES,
            StackSettings(gpu_max_streams=2, gpu_target_streams_per_instance=1),
            "bucket",
            "key",
            "server",
            "/gorggle/test/server",
        ),
        "GORGGLE_ROOT": str(root),
        "GORGGLE_IMAGE_PYTHON": str(image),
        "GORGGLE_DEVICE": "cpu",
        "GORGGLE_LISTEN_HOST": "127.0.0.1",
        "GORGGLE_SERVER_PORT": str(free_port()),
        "GORGGLE_HTTP_PORT": str(free_port()),
        "AWS_ENDPOINT_URL": secrets,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    commands = tmp_path_factory.mktemp("commands")
    log = commands / "called"
    for name in ("systemctl", "useradd", "aws", "curl"):
        (commands / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n')
        (commands / name).chmod(0o755)
    # Compiling all packages to bytecode takes half of the time; the tests import few of them.
    environment = {"PATH": f"{commands}:/usr/bin:/bin", "HOME": str(root), "PIP_NO_COMPILE": "1", **variables}
    script = root / "opt/gorggle/bundle/infrastructure/instance_agent/bootstrap.sh"
    result = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return root, variables, log.read_text().splitlines()


@pytest.mark.drill
def test_the_services_start_last(bootstrapped: Any) -> None:
    _, _, commands = bootstrapped
    assert commands[-2:] == [
        "systemctl daemon-reload",
        "systemctl enable --now gorggle.service gorggle-agent.service",
    ]


@pytest.mark.drill
def test_the_locked_packages_are_installed_and_torch_is_the_ami_s(bootstrapped: Any) -> None:
    root, _, _ = bootstrapped
    paths = subprocess.run(
        [root / "opt/gorggle/venv/bin/python", "-c", "import gorggle, gorggle_server, numpy, torch; print(gorggle.__file__, numpy.__file__, torch.__file__)"],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert str(root) in paths[0]
    assert str(root) in paths[1]
    assert str(root) not in paths[2]


@pytest.mark.drill
def test_systemd_accepts_the_units(bootstrapped: Any) -> None:
    root, variables, _ = bootstrapped
    for unit in UNITS:
        text = (root / "etc/systemd/system" / unit).read_text()
        parser = configparser.RawConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
        assert parser["Service"]["ExecStart"].startswith(str(root))
        assert "@" not in text
        if analyze := shutil.which("systemd-analyze"):
            result = subprocess.run(
                [analyze, "verify", "--man=no", root / "etc/systemd/system" / unit],
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stderr
            assert "Unknown" not in result.stderr, result.stderr
    server = (root / "etc/systemd/system/gorggle.service").read_text()
    assert f"TimeoutStopSec={int(variables['GORGGLE_DRAIN_S']) + 30}" in server


def read_environment(root: Path, unit: str) -> dict[str, str]:
    lines = (root / "etc/gorggle" / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.drill
def test_the_server_transcribes_over_mutual_tls(bootstrapped: Any, identities: Any) -> None:
    from gorggle import Client

    root, variables, _ = bootstrapped
    _, caller = identities
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(root),
        "OMP_NUM_THREADS": "1",
        **read_environment(root, "server.env"),
    }
    command = [
        root / "opt/gorggle/venv/bin/gorggle",
        "serve",
        "--log-format",
        "json",
        "--print-ready",
        "--exit-on-stdin-eof",
    ]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            assert json.loads(server.stdout.readline())
            with Client(
                f"127.0.0.1:{variables['GORGGLE_SERVER_PORT']}",
                root_certificates=caller.ca.encode(),
                client_certificate=caller.certificate.encode(),
                client_key=caller.key.encode(),
                server_name="server.gorggle.internal",
            ) as client:
                assert client.server_info().capacity.max_streams == 2
                text = " ".join(segment.text for segment in client.transcribe(CLIP))
        finally:
            server.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(60)
    assert len(text.split()) >= 3


def test_a_failed_bootstrap_logs_the_reason_and_abandons_the_launch(image: Path, tmp_path: Path) -> None:
    """Without wheels, the log group names the failed step and the lifecycle action is abandoned."""
    commands = tmp_path / "bin"
    commands.mkdir()
    log = commands / "called"
    for name in ("aws", "useradd", "systemctl"):
        (commands / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n')
        (commands / name).chmod(0o755)
    (commands / "curl").write_text("#!/bin/sh\necho i-0123456789abcdef0\n")
    (commands / "curl").chmod(0o755)
    bundle = tmp_path / "opt/gorggle/bundle"
    shutil.copytree(ROOT / "infrastructure/instance_agent", bundle / "infrastructure/instance_agent")
    (bundle / "wheels").mkdir()
    shutil.copy(ROOT / "infrastructure/packaging/locks/server.lock", bundle)
    variables = instance_environment(
        NAMES, StackSettings(), "bucket", "key", "server", "/gorggle/test/server"
    )
    environment = {
        **variables,
        "PATH": f"{commands}:/usr/bin:/bin",
        "GORGGLE_ROOT": str(tmp_path),
        "GORGGLE_IMAGE_PYTHON": str(image),
    }
    script = bundle / "infrastructure/instance_agent/bootstrap.sh"
    result = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    logged = log.read_text()
    assert "installing the packages" in logged
    assert "complete-lifecycle-action" in logged
    assert "ABANDON" in logged
    assert "i-0123456789abcdef0" in logged
    assert "systemctl" not in logged


def test_user_data_fits_the_ec2_limit_and_passes_shellcheck() -> None:
    text = render_user_data(
        NAMES,
        StackSettings(model_uri="s3://models-of-ours/lips/large.safetensors"),
        "bucket",
        "key",
        "arn",
        "group",
    )
    assert len(text.encode()) < 16_384
    syntax_check = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert syntax_check.returncode == 0, syntax_check.stderr
    shellcheck = Path(sys.executable).with_name("shellcheck")
    lint = subprocess.run([shellcheck, "-"], input=text, text=True, capture_output=True, check=False)
    assert lint.returncode == 0, lint.stdout


def test_the_script_requires_only_variables_that_user_data_sets() -> None:
    variables = set(instance_environment(NAMES, StackSettings(), "bucket", "key", "arn", "group"))
    script = (ROOT / "infrastructure/instance_agent/bootstrap.sh").read_text()
    required = script.partition("for name in ")[2].partition("; do")[0].replace("\\", "").split()
    assert {f"GORGGLE_{name}" for name in required} <= variables
