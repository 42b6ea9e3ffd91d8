"""Write the lock files with uv: ``python -m infrastructure.packaging.lock``.

A lock lists exact versions with the hashes of their wheels. ``pulumi up`` installs only what the locks name. Existing
versions are kept as long as they satisfy the requirements; delete a lock to upgrade its packages.
"""

from __future__ import annotations

from pathlib import Path

from infrastructure.packaging.wheels import Target, run_uv

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).with_name("locks")
LAMBDA_TARGETS = tuple(Target(each, python) for each in ("x86_64", "arm64") for python in ("3.12", "3.13"))
# The AMI has one of these Python versions.
SERVER_TARGETS = (Target("x86_64", "3.12"), Target("x86_64", "3.13"))
LAYERS = ("base", "media", "certificates")
# Replaces Lambda's own runtime packages where functions run locally under another Python. Not a layer.
RUNTIME = "runtime"
# Lambda's runtime includes these: https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html
IN_RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")


def write_locks() -> None:
    """Write all lock files."""
    in_runtime = [f"--no-emit-package={name}" for name in IN_RUNTIME]
    for name in LAYERS:
        _compile(name, "3.12", *in_runtime, LOCKS / f"{name}.in")
    _compile(RUNTIME, "3.12", LOCKS / f"{RUNTIME}.in")
    # 3.11: the bootstrap test runs under the Python that runs the tests.
    overrides = ("--override", LOCKS / "server.overrides")
    _compile("server", "3.11", "--extra=server", *overrides, ROOT / "pyproject.toml")


def _compile(name: str, python: str, *args: str | Path) -> None:
    options = [f"--python-version={python}", f"--python-platform={LAMBDA_TARGETS[0].uv_platform}"]
    options += ["--generate-hashes", "--only-binary=:all:", "--no-annotate"]
    options += ["--custom-compile-command=python -m infrastructure.packaging.lock"]
    run_uv("pip", "compile", *options, *args, "--output-file", LOCKS / f"{name}.lock")


if __name__ == "__main__":
    write_locks()
