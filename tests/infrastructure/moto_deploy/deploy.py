"""Deploy the Pulumi program to moto with boto3, without Pulumi's engine.

It verifies names, references, policies and shapes, but not permissions (moto does not enforce them), quotas or updates.

Runs as a command, because the state of Pulumi's SDK is global::

    python -m tests.infrastructure.moto_deploy.deploy --endpoint http://127.0.0.1:5000 --packages packages.json --settings '{"face_engine": "server"}'

It prints the stack's outputs as JSON, and fails if a resource cannot be created.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore import xform_name
from botocore.exceptions import ClientError

from infrastructure.config import StackSettings
from infrastructure.packaging.package import Package, Packages
from tests.infrastructure.moto_deploy import (
    api_validation,
    data_sources,
    provider_outputs,
    pulumi_engine,
    resource_handlers,
)

ROOT = Path(__file__).resolve().parents[3]
STACK = "local"
# Operations that moto 5.2.5 lacks; they are skipped. A test fails once moto has one of them.
UNSUPPORTED_BY_MOTO = frozenset({"cloudfront.CreateResponseHeadersPolicy", "budgets.CreateBudgetAction"})


class ApplyError(Exception):
    """A resource could not be created."""


class LocalAccount:
    """Creates resources in an account on a moto server."""

    def __init__(self, endpoint: str, variables: Mapping[str, str] | None = None) -> None:
        """``variables`` override environment variables of functions, such as the address of the load balancer."""
        self._endpoint, self._variables = endpoint, dict(variables or {})
        self._clients: dict[str, Any] = {}
        self.skipped_operations: list[str] = []
        self.default_tags: dict[str, str] = {}

    def create_resource(self, resource: pulumi_engine.Resource) -> tuple[str, Mapping[str, Any]]:
        """Create a resource; return its id and outputs.

        Raises:
            ApplyError: it cannot be created.
        """
        try:
            calls = resource_handlers.create_calls(resource, self.default_tags)
            result = None
            while True:
                result = self._execute(calls.send(result))
        except StopIteration as done:
            identity, outputs = done.value
            return identity, {"id": identity, **_placeholder_outputs(resource), **outputs}
        except (ClientError, KeyError, IndexError, TypeError, api_validation.ApiShapeError) as error:
            raise ApplyError(f"{resource.type} {resource.name}: {type(error).__name__}: {error}") from error

    def _execute(self, call: resource_handlers.Call) -> Any:
        operation = api_validation.operation(call.operation)
        if problems := api_validation.validate(operation.input_shape, call.parameters):
            raise api_validation.ApiShapeError("; ".join(problems))
        if call.operation in UNSUPPORTED_BY_MOTO:
            self.skipped_operations.append(call.operation)
            return api_validation.sample_output(operation.output_shape)
        if call.operation in OVERRIDES:
            return OVERRIDES[call.operation](self, dict(call.parameters))
        return self.send(call.operation, self._override_variables(call))

    def _override_variables(self, call: resource_handlers.Call) -> Mapping[str, Any]:
        if call.operation != "lambda.CreateFunction":
            return call.parameters
        before = call.parameters["Environment"]["Variables"]
        replaced = {name: self._variables.get(name, value) for name, value in before.items()}
        return {**call.parameters, "Environment": {"Variables": replaced}}

    def send(self, operation: str, parameters: Mapping[str, Any]) -> Any:
        """Send a call and return its result."""
        service, _, method = operation.partition(".")
        client = self.client(service)
        return getattr(client, xform_name(method))(**parameters)

    def client(self, service: str) -> Any:
        """Return a client of a service."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self._endpoint,
                region_name=provider_outputs.REGION,
                aws_access_key_id="local",
                aws_secret_access_key="local",
            )
        return self._clients[service]


def _placeholder_outputs(resource: pulumi_engine.Resource) -> dict[str, str]:
    """Return empty values for the other string outputs, so that no ``apply`` gets None."""
    return {key: "" for key in provider_outputs.string_outputs(resource.type) if key not in resource.inputs}


def _put_bucket_policy(account: LocalAccount, parameters: dict[str, Any]) -> Any:
    """Remove the statement that denies plain HTTP: moto ignores its condition and would deny everything."""
    policy = json.loads(parameters["Policy"])
    policy["Statement"] = [each for each in policy["Statement"] if each["Sid"] != "TlsOnly"]
    if not policy["Statement"]:
        return {}
    return account.send("s3.PutBucketPolicy", {**parameters, "Policy": json.dumps(policy)})


def _create_group(account: LocalAccount, parameters: dict[str, Any]) -> Any:
    """Add the lifecycle hooks separately: moto ignores them in CreateAutoScalingGroup."""
    hooks = parameters.pop("LifecycleHookSpecificationList", [])
    result = account.send("autoscaling.CreateAutoScalingGroup", parameters)
    for hook in hooks:
        group = parameters["AutoScalingGroupName"]
        account.send("autoscaling.PutLifecycleHook", {"AutoScalingGroupName": group, **hook})
    return result


def _put_scaling_policy(account: LocalAccount, parameters: dict[str, Any]) -> Any:
    """Add the policy's ARN, which moto's result lacks."""
    result = account.send("autoscaling.PutScalingPolicy", parameters)
    group, policy = parameters["AutoScalingGroupName"], parameters["PolicyName"]
    arn = (
        f"arn:aws:autoscaling:{provider_outputs.REGION}:{provider_outputs.ACCOUNT}:scalingPolicy:{uuid.uuid4()}:"
        f"autoScalingGroupName/{group}:policyName/{policy}"
    )
    return {**result, "PolicyARN": arn}


def _rotate_secret(account: LocalAccount, parameters: dict[str, Any]) -> Any:
    """Invoke the four rotation steps: moto fails on the first rotation of a secret without a value."""
    secret, token = parameters["SecretId"], str(uuid.uuid4())
    for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
        event = {"Step": step, "SecretId": secret, "ClientRequestToken": token}
        result = account.client("lambda").invoke(
            FunctionName=parameters["RotationLambdaARN"], Payload=json.dumps(event).encode()
        )
        if result.get("FunctionError"):
            raise ApplyError(f"{step} of {secret}: {result['Payload'].read().decode()}")
    return {"ARN": secret}


OVERRIDES: Mapping[str, Callable[[LocalAccount, dict[str, Any]], Any]] = {
    "s3.PutBucketPolicy": _put_bucket_policy,
    "autoscaling.CreateAutoScalingGroup": _create_group,
    "autoscaling.PutScalingPolicy": _put_scaling_policy,
    "secretsmanager.RotateSecret": _rotate_secret,
}


def apply(
    endpoint: str,
    settings: StackSettings,
    packages: Packages,
    *,
    stack: str = STACK,
    variables: Mapping[str, str] | None = None,
) -> tuple[pulumi_engine.ProgramResult, LocalAccount]:
    """Deploy the stack to a moto server.

    Raises:
        ApplyError: a resource could not be created.
    """
    account = LocalAccount(endpoint, variables)
    program = runpy.run_path(str(ROOT / "__main__.py"), run_name="gorggle_stack")["stack"]
    account.default_tags = {**settings.tag_map, "gorggle:stack": stack}
    run = pulumi_engine.run_program(
        lambda: program(settings, packages),
        account.create_resource,
        data_sources.invoke,
        stack=stack,
        config={"aws:region": provider_outputs.REGION},
    )
    return run, account


def read_packages(path: Path) -> Packages:
    """Read a list of built packages: ``{"code": {"thin": ZIP, …}, "layers": {"base": ZIP, …}, "server": ZIP}``."""
    paths = json.loads(path.read_text())
    return Packages(
        code={name: Package.read(Path(each)) for name, each in paths["code"].items()},
        layers={name: Package.read(Path(each)) for name, each in paths["layers"].items()},
        server=Package.read(Path(paths["server"])),
    )


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.infrastructure.moto_deploy.deploy", description="Deploy the stack to moto."
    )
    parser.add_argument("--endpoint", required=True, help="URL of the moto server")
    parser.add_argument(
        "--packages", required=True, type=Path, help="JSON file with the paths of the packages"
    )
    parser.add_argument("--settings", default="{}", help="settings of the stack as JSON")
    parser.add_argument("--stack", default=STACK)
    parser.add_argument(
        "--variables", default="{}", help="environment variables of functions to override, as JSON"
    )
    options = parser.parse_args()
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    sys.path.insert(0, str(ROOT))
    settings = StackSettings.model_validate(json.loads(options.settings))
    run, account = apply(
        options.endpoint,
        settings,
        read_packages(options.packages),
        stack=options.stack,
        variables=json.loads(options.variables),
    )
    resources = [{"type": each.type, "name": each.name, "id": each.id} for each in run.aws_resources]
    print(
        json.dumps(
            {
                "outputs": run.outputs,
                "skipped_operations": account.skipped_operations,
                "resources": resources,
            },
            default=str,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(_main())
