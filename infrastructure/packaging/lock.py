"""Says which packages go where, and writes the locks: ``python -m infrastructure.packaging.lock``.

A lock holds exact versions and the hashes of the wheels for every target. It is in the repository; ``pulumi up``
downloads what it names and nothing else.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from infrastructure.packaging import wheels
from infrastructure.packaging.wheels import Target

LOCKS = Path(__file__).with_name("locks")
LAMBDA_TARGETS = tuple(Target(each, python) for each in ("x86_64", "arm64") for python in ("3.12", "3.13"))
# The image's Python is one of these.
SERVER_TARGETS = (Target("x86_64", "3.12"), Target("x86_64", "3.13"))
# The start-up is tested on the Python that runs the tests.
LOCKED_SERVER_TARGETS = (Target("x86_64", "3.11"), *SERVER_TARGETS)
LAYERS: Mapping[str, Sequence[str]] = {
    "base": ("aws-lambda-powertools[tracer]>=3.8,<4", "PyYAML>=6,<7"),
    # protobuf below 7 as everywhere in this project.
    "media": (
        "googleapis-common-protos>=1.63",
        "grpcio>=1.81.1",
        "protobuf>=6.33.5,<7",
        "av>=18.1,<19",
        "numpy>=2.1,<3",
    ),
    "certificates": ("cryptography>=45",),
}
# What stands for Lambda's own runtime where functions run on a machine of ours, under the runtime's Python. It is no layer.
RUNTIME = "runtime"
RUNTIME_REQUIREMENTS: Sequence[str] = ("awslambdaric>=4,<5", "boto3>=1.40")
# Lambda's runtime brings these; https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html
IN_RUNTIME = {"boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3"}
# The image brings torch, for its GPU. Of the other only a data file is used: see building.LANDMARKS.
NOT_ON_SERVERS = {"torch", "face-recognition-models"}


def server_requirements(root: Path) -> list[str]:
    """What the server needs, of ``pyproject.toml``, beside what its image brings."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["server"]
    return [each for each in wanted if _name(each) not in NOT_ON_SERVERS]


def resolve_lock(
    requirements: Sequence[str], targets: Sequence[Target], left_out: Container[str] = ()
) -> str:
    """A lock's text.

    Raises:
        ValueError: two targets would get two versions of a package.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for target in targets:
        for name, (version, digest) in wheels.resolve(requirements, target).items():
            if _name(name) not in left_out:
                found.setdefault(_name(name), {}).setdefault(version, set()).add(digest)
    lines = ["# Written by `python -m infrastructure.packaging.lock`; do not edit."]
    for name, versions in sorted(found.items()):
        if len(versions) > 1:
            raise ValueError(f"{name} has no version that all targets have: {sorted(versions)}")
        ((version, digests),) = versions.items()
        hashes = " \\\n".join(f"    --hash=sha256:{digest}" for digest in sorted(digests))
        lines.append(f"{name}=={version} \\\n{hashes}")
    return "\n".join(lines) + "\n"


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match, f"{requirement!r} names no package"
    return wheels.canonicalize_name(match[0])


def main(root: Path) -> None:
    """Write all locks anew."""
    LOCKS.mkdir(exist_ok=True)
    for name, requirements in LAYERS.items():
        (LOCKS / f"{name}.lock").write_text(resolve_lock(requirements, LAMBDA_TARGETS, IN_RUNTIME))
    (LOCKS / f"{RUNTIME}.lock").write_text(resolve_lock(RUNTIME_REQUIREMENTS, LAMBDA_TARGETS))
    (LOCKS / "server.lock").write_text(resolve_lock(server_requirements(root), LOCKED_SERVER_TARGETS))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
