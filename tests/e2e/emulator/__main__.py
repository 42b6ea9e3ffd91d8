"""``python -m tests.e2e.emulator``: like ``python -m gorggle_local.aws``, for tests.

Further requests below ``/_local/``: ``faults`` replaces the injected faults, ``logs`` returns the invocations and their logs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from moto.awslambda.models import LambdaFunction

from gorggle_local.aws.__main__ import CACHE_DIR, run
from gorggle_local.aws.emulator import AwsEmulator, EmulatorSettings
from gorggle_local.aws.lambda_runtime import Outcome, error_outcome
from tests.e2e.emulator import python_discovery, service_patches
from tests.e2e.emulator.fake_services import GroundTruth
from tests.e2e.emulator.fault_injection import Fault, Faults

MAX_LOG_ENTRIES = 5000


class FaultyEmulator(AwsEmulator):
    """An emulator with injected faults, which keeps the logs of the functions."""

    def __init__(self, settings: EmulatorSettings) -> None:
        super().__init__(settings)
        self._faults = Faults()
        self._logs: list[dict[str, Any]] = []

    def _run_function(self, function: LambdaFunction, payload: str) -> Outcome:
        outcome = self._run_with_faults(function, payload)
        self._logs.append(
            {
                "function": function.function_name,
                "is_error": outcome.is_error,
                "payload": outcome.payload[:2000],
                "log": list(outcome.log),
            }
        )
        del self._logs[:-MAX_LOG_ENTRIES]
        return outcome

    def _run_with_faults(self, function: LambdaFunction, payload: str) -> Outcome:
        version = self._resolve_version(function)
        fault = self._faults.take(version.name)
        if fault is None:
            return self._functions.invoke(version, payload)
        match fault.kind:
            case "error":
                return error_outcome(fault.error, fault.message)
            case "unreachable":
                return error_outcome("Lambda.ServiceException", fault.message)
            case "timeout" | "exit":
                # The runtime kills the process.
                limited = dataclasses.replace(version, timeout_s=fault.after_s)
                outcome = self._functions.invoke(limited, payload)
                if fault.kind == "exit" and "Sandbox.Timedout" in outcome.payload:
                    return error_outcome(
                        "Runtime.ExitError", "Runtime exited with signal: killed", outcome.log
                    )
                return outcome
            case "twice":
                self._functions.invoke(version, payload)
                return self._functions.invoke(version, payload)

    def _handle_control(self, path: str, body: bytes) -> Any:
        if path == "faults":
            self._faults.clear()
            for fault in json.loads(body):
                self._faults.add(Fault(**fault))
            return {}
        if path == "logs":
            return self._logs
        return super()._handle_control(path, body)


def main() -> None:
    """Run the emulator."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.emulator", description=__doc__)
    parser.add_argument("--truth", type=Path, required=True, help="folder of reference transcripts")
    parser.add_argument(
        "--time-scale", type=float, default=1.0, help="factor for the delays of the state machine's retries"
    )
    parser.add_argument("--python", type=Path, help="interpreter for the functions; default: this one")
    parser.add_argument("--runtime", type=Path, help="zip of the Lambda runtime's packages for --python")
    options = parser.parse_args()
    interpreter = None
    if (options.python is None) != (options.runtime is None):
        parser.error("--python and --runtime must be given together")
    if options.python is not None:
        interpreter = python_discovery.probe(options.python)
        if interpreter is None:
            parser.error(f"{options.python} is not a CPython that can load packages built for Lambda")
    truth = GroundTruth((options.truth,))
    service_patches.patch_retry_delays(options.time_scale)
    service_patches.patch_transcribe(truth)
    service_patches.patch_rekognition(truth)
    run(FaultyEmulator(EmulatorSettings(CACHE_DIR, interpreter=interpreter, runtime=options.runtime)))


if __name__ == "__main__":
    main()
