"""The Python that Lambda functions run under in tests: Lambda's version with the locked layers, if it is installed.

Otherwise functions run under the current interpreter, with the same distributions as installed here.
"""

from __future__ import annotations

import functools
import platform
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gorggle_local.aws import lambda_packages
from gorggle_local.aws.lambda_runtime import current_interpreter
from infrastructure.config import StackSettings
from infrastructure.packaging import build, lock
from infrastructure.packaging.wheels import Target
from tests.e2e.emulator import python_discovery

CACHE = Path(__file__).resolve().parents[2] / ".build" / "packages"
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


@dataclass(frozen=True)
class LambdaPython:
    """The interpreter and the packages of functions.

    Attributes:
        description: for reports.
        options: for ``python -m tests.e2e.emulator``.
        layers: built layers by name; None: layers of this environment.
    """

    description: str
    options: tuple[str, ...] = ()
    layers: Mapping[str, Path] | None = None


def build_layer_zip(layer: str, target: Path) -> Path:
    """Write a layer with this environment's distributions, in ``python/``."""
    with zipfile.ZipFile(target, "w") as archive:
        for path, name in lambda_packages._list_distribution_files(lambda_packages.LAYERS[layer]):
            archive.write(path, Path("python") / name)
    return target


def use_current_environment(reason: str) -> LambdaPython:
    return LambdaPython(f"{current_interpreter()}, with the packages of this environment: {reason}")


@functools.cache
def lambda_python() -> LambdaPython:
    """Find Lambda's Python and build its layers."""
    version = StackSettings().python_version
    interpreter = python_discovery.find_interpreter(version)
    if interpreter is None:
        return use_current_environment(f"Python {version} is not installed")
    target = Target(ARCHITECTURES[platform.machine()], version)
    try:
        layers = {name: build.build_layer(name, target, CACHE).path for name in lock.LAYERS}
        runtime = build.build_layer(lock.RUNTIME, target, CACHE).path
    except RuntimeError as error:
        # The packaging tests fail in this case; these can run without.
        return use_current_environment(f"the layers cannot be built: {str(error)[:200]}")
    options = ("--python", str(interpreter.executable), "--runtime", str(runtime))
    return LambdaPython(f"{interpreter}, with the layers of AWS", options, layers)
