"""The local AWS: a patched moto server, a Lambda runtime, SQS event sources, and HTTP APIs."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from moto.awslambda.models import LambdaFunction, LayerVersion
from moto.core.config import default_user_config
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from gorggle_local.aws import api_gateway, lambda_packages, moto_patches
from gorggle_local.aws.lambda_runtime import (
    FunctionPool,
    FunctionVersion,
    Interpreter,
    Outcome,
    current_interpreter,
)
from gorggle_local.aws.persistence import PersistenceConfig, StatePersister
from gorggle_local.aws.sqs_poller import SqsPoller
from gorggle_local.aws.state_store import StateStoreError

ACCOUNT, REGION = "123456789012", "us-east-1"


@dataclass(frozen=True)
class EmulatorSettings:
    """Settings of the emulator.

    Attributes:
        cache_dir: folder for unzipped packages.
        aws_port, api_port: 0 for a free port.
        interpreter: Python for the functions; None: the current one.
        runtime: zip with the Lambda runtime's packages; None: those of the current environment.
    """

    cache_dir: Path
    aws_port: int = 0
    api_port: int = 0
    interpreter: Interpreter | None = None
    runtime: Path | None = None


class AwsEmulator:
    """The emulator; one per process, because moto's state is global."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self.interpreter = settings.interpreter or current_interpreter()
        self._folders: dict[str, Path] = {}
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "MOTO_ACCOUNT_ID": ACCOUNT,
        }
        self._server = ThreadedMotoServer("127.0.0.1", settings.aws_port, verbose=False)
        self._persister: StatePersister | None = None
        self.endpoint_url = ""
        self.api_url = ""

    def start(self) -> None:
        """Start all servers."""
        default_user_config["stepfunctions"] = {"execute_state_machine": True}
        moto_patches.apply_patches(self._invoke)
        self._server.start()
        port = self._server.get_host_and_port()[1]
        self.endpoint_url = f"http://127.0.0.1:{port}"
        # Used by moto's Step Functions to call moto's other services.
        os.environ["MOTO_PORT"] = str(port)
        self._functions = FunctionPool(self.endpoint_url, REGION, self.interpreter)
        self._runtime = lambda_packages.prepare_runtime(self._settings.cache_dir, self._settings.runtime)
        self._client = self.client("lambda")
        self._pollers = SqsPoller(ACCOUNT, REGION, self.client("sqs"), self._client)
        self._pollers.start()
        api = api_gateway.HttpApi(ACCOUNT, REGION, self._call)
        self._api = api_gateway.create_server(self._settings.api_port, api, self._handle_control)
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        self.api_url = f"http://127.0.0.1:{self._api.server_address[1]}"

    def stop(self) -> None:
        """Stop all servers."""
        self._api.shutdown()
        self._pollers.stop()
        # Before the functions: the effects of their end on jobs must not be saved.
        if self._persister is not None:
            self._persister.stop()
        self._functions.close()
        self._server.stop()

    def client(self, service: str) -> Any:
        """Return a client of a service."""
        from botocore.config import Config

        config: Any = Config(read_timeout=960, retries={"total_max_attempts": 1})
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name=REGION, config=config)

    def _call(self, function: str, event: dict[str, Any]) -> Any:
        answer = self._client.invoke(FunctionName=function, Payload=json.dumps(event))
        payload = json.loads(answer["Payload"].read() or b"null")
        return None if answer.get("FunctionError") else payload

    def _invoke(self, function: LambdaFunction, payload: str, _request_headers: Any, headers: Any) -> str:
        outcome = self._run_function(function, payload)
        if outcome.is_error:
            headers["x-amz-function-error"] = "Unhandled"
        return outcome.payload

    def _run_function(self, function: LambdaFunction, payload: str) -> Outcome:
        return self._functions.invoke(self._resolve_version(function), payload)

    def _resolve_version(self, function: LambdaFunction) -> FunctionVersion:
        from moto.awslambda.models import lambda_backends

        backend = lambda_backends[ACCOUNT][REGION]
        layers: list[Path] = []
        for layer in function.layers:
            found = backend.layers_versions_by_arn(layer["Arn"])
            assert found is not None, "moto checks layers when a function is created"
            layers.append(self._unzip_package(found))
        return FunctionVersion(
            name=function.function_name,
            arn=function.function_arn,
            handler=str(function.handler),
            code=self._unzip_package(function),
            layers=tuple(layers),
            runtime=self._runtime,
            variables=tuple(sorted(function.environment_vars.items())),
            timeout_s=float(function.timeout),
            memory_mb=int(function.memory_size),
        )

    def _unzip_package(self, package: LambdaFunction | LayerVersion) -> Path:
        """Unzip a package and return its folder; cached by moto's hash, because hashing a layer takes half a second."""
        folder = self._folders.get(package.code_sha_256)
        if folder is None:
            folder = lambda_packages.unzip(package.code_bytes, self._settings.cache_dir)
            self._folders[package.code_sha_256] = folder
        return folder

    def _handle_control(self, path: str, body: bytes) -> Any:
        """Handle a request to control the emulator."""
        if path == "persist":
            return self._start_persistence(**json.loads(body))
        return {"interpreter": str(self.interpreter), "endpoint_url": self.endpoint_url}

    def _start_persistence(self, folder: str, **config: Any) -> dict[str, Any]:
        """Restore the state of a folder, and save changes to it from now on."""
        if self._persister is not None:
            return {"error": "the state is persisted already"}
        try:
            persister = StatePersister(
                Path(folder), PersistenceConfig(**config), ACCOUNT, REGION, self.client("dynamodb")
            )
            result = persister.start()
        except (StateStoreError, OSError) as error:
            return {"error": str(error)}
        self._persister = persister
        return result
