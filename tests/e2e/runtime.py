"""What the pipeline's functions run under: the runtime's own Python with the layers of the locks, where there is one.

A machine without that interpreter runs them under its own, with the same distributions as it has them installed.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gorggle_local.aws import python_discovery
from infrastructure.config import StackSettings
from infrastructure.packaging import build, lock
from infrastructure.packaging.wheels import Target
from tests.locks import build_folder_lock

KEPT = Path(__file__).resolve().parents[2] / ".build" / "packages"
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


@dataclass(frozen=True)
class LambdaPython:
    """What functions run under.

    Attributes:
        description: the same in words.
        options: what ``python -m gorggle_local.aws`` is told.
        layers: built ones by name; None: of this environment.
    """

    description: str
    options: tuple[str, ...] = ()
    layers: Mapping[str, Path] | None = None


def use_current_environment(why: str) -> LambdaPython:
    return LambdaPython(f"{python_discovery.current_interpreter()}, with what is installed here: {why}")


@functools.cache
def lambda_python() -> LambdaPython:
    """Look for the runtime's Python, and build its layers once."""
    wanted = StackSettings().python_version
    found = python_discovery.find_interpreter(wanted)
    if found is None:
        return use_current_environment(f"this machine has no Python {wanted}")
    target = Target(ARCHITECTURES[platform.machine()], wanted)
    try:
        with build_folder_lock():
            layers = {name: build.layer(name, target, KEPT).path for name in lock.LAYERS}
            runtime = build.layer(lock.RUNTIME, target, KEPT).path
    except RuntimeError as error:
        # The tests of packaging fail then; these can do without.
        return use_current_environment(f"the layers cannot be had: {str(error)[:200]}")
    options = ("--python", str(found.executable), "--runtime", str(runtime))
    return LambdaPython(f"{found}, with the layers that AWS gets", options, layers)
