"""An AWS on this machine: moto's server with the patches, functions that run, queues that are polled, an HTTP API."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from moto.awslambda.models import LambdaFunction, LayerVersion
from moto.core.config import default_user_config
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from gorggle_local.aws import api_gateway, lambda_packages, moto_patches, python_discovery
from gorggle_local.aws.fake_services import GroundTruth
from gorggle_local.aws.fault_injection import Fault, Faults
from gorggle_local.aws.lambda_runtime import Functions, FunctionVersion, Outcome, failure
from gorggle_local.aws.persistence import PersistenceConfig, StatePersister
from gorggle_local.aws.python_discovery import Interpreter
from gorggle_local.aws.sqs_poller import Pollers
from gorggle_local.aws.state_store import KeptStateError

ACCOUNT, REGION = "123456789012", "us-east-1"
KEPT_LOGS = 5000


@dataclass(frozen=True)
class MachineSettings:
    """How the machine is made.

    Attributes:
        cache: folder for what is made once: unzipped packages.
        truths: folders with the truths that the stand-ins answer from.
        aws_port, api_port: 0 takes free ones.
        time_scale: the state machine's retries take this share of their time.
        interpreter: what the functions run under; None: what runs this.
        runtime: a zip of what Lambda's runtime brings for it; None: as it is installed beside this.
    """

    cache: Path
    truths: tuple[Path, ...] = ()
    aws_port: int = 0
    api_port: int = 0
    time_scale: float = 1.0
    interpreter: Interpreter | None = None
    runtime: Path | None = None


class AwsEmulator:
    """Runs in this process; one in a process, for moto's state is the process's."""

    def __init__(self, settings: MachineSettings) -> None:
        self._settings = settings
        self.interpreter = settings.interpreter or python_discovery.own()
        self.faults = Faults()
        self.logs: list[dict[str, Any]] = []
        self._folders: dict[str, Path] = {}
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "MOTO_ACCOUNT_ID": ACCOUNT,
        }
        self._server = ThreadedMotoServer("127.0.0.1", settings.aws_port, verbose=False)
        self._keeper: StatePersister | None = None
        self.endpoint_url = ""
        self.api_url = ""

    def start(self) -> None:
        """Listen."""
        default_user_config["stepfunctions"] = {"execute_state_machine": True}
        moto_patches.patch(
            moto_patches.Patches(self._invoke, GroundTruth(self._settings.truths), self._settings.time_scale)
        )
        self._server.start()
        port = self._server.get_host_and_port()[1]
        self.endpoint_url = f"http://127.0.0.1:{port}"
        # Where moto's Step Functions calls moto's other services.
        os.environ["MOTO_PORT"] = str(port)
        self._functions = Functions(self.endpoint_url, REGION, self.interpreter)
        self._runtime = lambda_packages.runtime_folder(self._settings.cache, self._settings.runtime)
        self._client = self.client("lambda")
        self._pollers = Pollers(ACCOUNT, REGION, self.client("sqs"), self._client)
        self._pollers.start()
        api = api_gateway.HttpApi(ACCOUNT, REGION, self._call)
        self._api = api_gateway.serve(self._settings.api_port, api, self._control)
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        self.api_url = f"http://127.0.0.1:{self._api.server_address[1]}"

    def stop(self) -> None:
        """End everything."""
        self._api.shutdown()
        self._pollers.stop()
        # Before the functions: what their end does to jobs is not kept.
        if self._keeper is not None:
            self._keeper.stop()
        self._functions.close()
        self._server.stop()

    def client(self, service: str) -> Any:
        """A client of a service of this machine."""
        from botocore.config import Config

        config: Any = Config(read_timeout=960, retries={"total_max_attempts": 1})
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name=REGION, config=config)

    def _call(self, function: str, event: dict[str, Any]) -> Any:
        answer = self._client.invoke(FunctionName=function, Payload=json.dumps(event))
        payload = json.loads(answer["Payload"].read() or b"null")
        return None if answer.get("FunctionError") else payload

    def _invoke(self, function: LambdaFunction, payload: str, _given: Any, headers: Any) -> str:
        outcome = self._outcome(function, payload)
        if outcome.is_error:
            headers["x-amz-function-error"] = "Unhandled"
        self.logs.append(
            {
                "function": function.function_name,
                "is_error": outcome.is_error,
                "payload": outcome.payload[:2000],
                "log": outcome.log,
            }
        )
        del self.logs[:-KEPT_LOGS]
        return outcome.payload

    def _outcome(self, function: LambdaFunction, payload: str) -> Outcome:
        version = self._version(function)
        fault = self.faults.next(version.name)
        if fault is None:
            return self._functions.invoke(version, payload)
        match fault.kind:
            case "error":
                return failure(fault.error, fault.message)
            case "unreachable":
                return failure("Lambda.ServiceException", fault.message)
            case "timeout":
                return self._functions.invoke(version, payload, timeout_s=fault.after_s)
            case "exit":
                return self._functions.invoke(version, payload, kill_after_s=fault.after_s)
            case "twice":
                self._functions.invoke(version, payload)
                return self._functions.invoke(version, payload)

    def _version(self, function: LambdaFunction) -> FunctionVersion:
        from moto.awslambda.models import lambda_backends

        backend = lambda_backends[ACCOUNT][REGION]
        layers: list[Path] = []
        for layer in function.layers:
            found = backend.layers_versions_by_arn(layer["Arn"])
            assert found is not None, "moto checks layers when a function is made"
            layers.append(self._unzipped(found))
        return FunctionVersion(
            name=function.function_name,
            arn=function.function_arn,
            handler=str(function.handler),
            code=self._unzipped(function),
            layers=tuple(layers),
            runtime=self._runtime,
            variables=tuple(sorted(function.environment_vars.items())),
            timeout_s=float(function.timeout),
            memory_mb=int(function.memory_size),
        )

    def _unzipped(self, package: LambdaFunction | LayerVersion) -> Path:
        """The folder of a package; looked for once, since a layer's bytes take half a second to be told apart."""
        folder = self._folders.get(package.code_sha_256)
        if folder is None:
            folder = lambda_packages.unzipped(package.code_bytes, self._settings.cache)
            self._folders[package.code_sha_256] = folder
        return folder

    def _control(self, path: str, body: bytes) -> Any:
        """What tests and people ask of this machine beside AWS."""
        if path == "faults":
            self.faults.clear()
            for fault in json.loads(body):
                self.faults.order(Fault(**fault))
            return {"ordered": True}
        if path == "logs":
            return _shown(self.logs)
        if path == "keep":
            return self._keep(**json.loads(body))
        return {"interpreter": str(self.interpreter), "endpoint_url": self.endpoint_url}

    def _keep(self, folder: str, **kept: Any) -> dict[str, Any]:
        """Give back what a folder holds of earlier runs, and keep there what happens from now on."""
        if self._keeper is not None:
            return {"error": "this machine keeps its state already"}
        try:
            keeper = StatePersister(
                Path(folder), PersistenceConfig(**kept), ACCOUNT, REGION, self.client("dynamodb")
            )
            told = keeper.start()
        except (KeptStateError, OSError) as error:
            return {"error": str(error)}
        self._keeper = keeper
        return told


def _shown(logs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**entry, "log": list(entry["log"])} for entry in logs]
