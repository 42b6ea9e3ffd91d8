"""Runs the Pulumi program in ``__main__.py`` on a mock engine that records the resources instead of creating them.

Pulumi's SDK keeps global state and takes seconds to import, so one subprocess imports it and forks for each stack.
Errors of the program are raised in the caller.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STACK = "test"


def record_stack(settings: dict[str, Any]) -> Any:
    """Return the resources and outputs of the stack with these settings."""
    from tests.infrastructure.moto_deploy.pulumi_engine import ProgramResult, Resource

    worker = _worker()
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(settings) + "\n")
    worker.stdin.flush()
    response = json.loads(worker.stdout.readline())
    if "error" in response:
        raise RuntimeError(response["error"])
    return ProgramResult([Resource(**each) for each in response["resources"]], response["outputs"])


@functools.cache
def _worker() -> subprocess.Popen[str]:
    # The worker exits at the end of its standard input, that is, when this process exits.
    return subprocess.Popen(
        [sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> None:
    sys.path.insert(0, str(ROOT))
    program = runpy.run_path(str(ROOT / "__main__.py"), run_name="gorggle_stack")["stack"]
    for line in sys.stdin:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        try:
            print(json.dumps(_record_resources(program, json.loads(line)), default=str), flush=True)
        except BaseException:
            print(json.dumps({"error": traceback.format_exc()[-3000:]}), flush=True)
        os._exit(0)


def _record_resources(program: Any, config: dict[str, Any]) -> dict[str, Any]:
    from infrastructure.config import StackSettings
    from infrastructure.packaging.package import Package, Packages
    from tests.infrastructure.moto_deploy import data_sources, provider_outputs, pulumi_engine

    def package(name: str) -> Package:
        path = Path(folder) / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("empty", "")
        return Package(path, "ab" * 32, 1)

    settings = StackSettings.model_validate(config)
    with tempfile.TemporaryDirectory() as folder:
        packages = Packages(
            code={kind: package(kind) for kind in ("thin", "full", "operations")},
            layers={kind: package(f"layer-{kind}") for kind in ("base", "media", "certificates")},
            server=package("server"),
        )
        result = pulumi_engine.run_program(
            lambda: program(settings, packages),
            provider_outputs.compute_outputs,
            data_sources.invoke,
            stack=STACK,
            config={"aws:region": provider_outputs.REGION},
        )
    return {"resources": [dataclasses.asdict(each) for each in result.resources], "outputs": result.outputs}


if __name__ == "__main__":
    _serve()
