"""Creates the stack on a local AWS: the resources of the very program that ``pulumi up`` runs, by boto3, on moto.

What this shows: names, references, policies and shapes fit together, and the parts find each other. What it does not:
permissions (moto asks nobody's), quotas, replacement of what is there, and AWS itself.

Run in a process of its own, since Pulumi's SDK keeps its state in the process::

    python -m gorggle_local.aws.deploy --endpoint http://127.0.0.1:5000 --packages packages.json --settings '{"face_engine": "server"}'

It prints the stack's outputs as JSON. Whatever cannot be applied ends it with an error.
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
from botocore.exceptions import ClientError

from gorggle_local.aws import api_validation, data_sources, provider_outputs, pulumi_engine, resource_handlers
from infrastructure.config import StackSettings
from infrastructure.packaging.package import Package, Packages

ROOT = Path(__file__).resolve().parents[2]
STACK = "local"
# Operations that moto 5.2.5 does not have. What they would make is left out, and said so; a test finds out when moto
# has learnt one.
UNSUPPORTED_BY_MOTO = frozenset({"cloudfront.CreateResponseHeadersPolicy", "budgets.CreateBudgetAction"})


class ApplyError(Exception):
    """A resource could not be created."""


class LocalAccount:
    """An account on a moto server, and the calls that make resources there."""

    def __init__(self, endpoint: str, variables: Mapping[str, str] | None = None) -> None:
        """``variables`` replace those of functions: here nothing stands behind the load balancer's address."""
        self._endpoint, self._variables = endpoint, dict(variables or {})
        self._clients: dict[str, Any] = {}
        self.skipped_operations: list[str] = []
        self.default_tags: dict[str, str] = {}

    def create_resource(self, resource: pulumi_engine.Resource) -> tuple[str, Mapping[str, Any]]:
        """Make one resource.

        Raises:
            ApplyError: it cannot be made.
        """
        try:
            making = resource_handlers.create_calls(resource, self.default_tags)
            answer = None
            while True:
                answer = self._execute(making.send(answer))
        except StopIteration as done:
            identity, made = done.value
            return identity, {"id": identity, **_placeholder_outputs(resource), **made}
        except (ClientError, KeyError, IndexError, TypeError, api_validation.ApiShapeError) as error:
            raise ApplyError(f"{resource.type} {resource.name}: {type(error).__name__}: {error}") from error

    def _execute(self, call: resource_handlers.Call) -> Any:
        operation = api_validation.operation(call.operation)
        if wrong := list(api_validation.validate(operation.input_shape, call.parameters, call.operation)):
            raise api_validation.ApiShapeError("; ".join(wrong))
        if call.operation in UNSUPPORTED_BY_MOTO:
            self.skipped_operations.append(call.operation)
            return api_validation.sample_output(operation.output_shape)
        if call.operation in OVERRIDES:
            return OVERRIDES[call.operation](self, dict(call.parameters))
        return self.send(call.operation, self._override_variables(call))

    def _override_variables(self, call: resource_handlers.Call) -> Mapping[str, Any]:
        if call.operation != "lambda.CreateFunction":
            return call.parameters
        given = call.parameters["Environment"]["Variables"]
        replaced = {name: self._variables.get(name, value) for name, value in given.items()}
        return {**call.parameters, "Environment": {"Variables": replaced}}

    def send(self, operation: str, parameters: Mapping[str, Any]) -> Any:
        """Send one call."""
        service, _, method = operation.partition(".")
        client = self.client(service)
        name = next(each for each, known in client.meta.method_to_api_mapping.items() if known == method)
        return getattr(client, name)(**parameters)

    def client(self, service: str) -> Any:
        """A client of a service."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self._endpoint,
                region_name=provider_outputs.REGION,
                aws_access_key_id="local",
                aws_secret_access_key="local",  # noqa: S106 - moto takes anything
            )
        return self._clients[service]


def _placeholder_outputs(resource: pulumi_engine.Resource) -> dict[str, str]:
    """Outputs that nobody needs but that an ``apply`` must not find missing."""
    return {key: "" for key in provider_outputs.string_outputs(resource.type) if key not in resource.inputs}


def _put_bucket_policy(account: LocalAccount, parameters: dict[str, Any]) -> Any:
    """Leave out the refusal of plain HTTP: moto looks at no condition, and would refuse everything."""
    policy = json.loads(parameters["Policy"])
    policy["Statement"] = [each for each in policy["Statement"] if each["Sid"] != "TlsOnly"]
    if not policy["Statement"]:
        return {}
    return account.send("s3.PutBucketPolicy", {**parameters, "Policy": json.dumps(policy)})


def _create_group(account: LocalAccount, parameters: dict[str, Any]) -> Any:
    """Add the hooks afterwards: moto forgets those that a group is made with."""
    hooks = parameters.pop("LifecycleHookSpecificationList", [])
    answer = account.send("autoscaling.CreateAutoScalingGroup", parameters)
    for hook in hooks:
        group = parameters["AutoScalingGroupName"]
        account.send("autoscaling.PutLifecycleHook", {"AutoScalingGroupName": group, **hook})
    return answer


def _put_scaling_policy(account: LocalAccount, parameters: dict[str, Any]) -> Any:
    """Add the policy's address: moto's answer lacks it."""
    answer = account.send("autoscaling.PutScalingPolicy", parameters)
    group, policy = parameters["AutoScalingGroupName"], parameters["PolicyName"]
    arn = (
        f"arn:aws:autoscaling:{provider_outputs.REGION}:{provider_outputs.ACCOUNT}:scalingPolicy:{uuid.uuid4()}:"
        f"autoScalingGroupName/{group}:policyName/{policy}"
    )
    return {**answer, "PolicyARN": arn}


def _rotate_secret(account: LocalAccount, parameters: dict[str, Any]) -> Any:
    """Take the four steps here: moto fails on the first rotation of a secret that has no value yet."""
    secret, token = parameters["SecretId"], str(uuid.uuid4())
    for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
        event = {"Step": step, "SecretId": secret, "ClientRequestToken": token}
        answer = account.client("lambda").invoke(
            FunctionName=parameters["RotationLambdaARN"], Payload=json.dumps(event).encode()
        )
        if answer.get("FunctionError"):
            raise ApplyError(f"{step} of {secret}: {answer['Payload'].read().decode()}")
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
    """Create the stack on a moto server.

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
    """Packages that were made already: ``{"code": {"thin": ZIP, …}, "layers": {"base": ZIP, …}, "server": ZIP}``."""
    found = json.loads(path.read_text())
    return Packages(
        code={name: Package.of(Path(each)) for name, each in found["code"].items()},
        layers={name: Package.of(Path(each)) for name, each in found["layers"].items()},
        server=Package.of(Path(found["server"])),
    )


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gorggle_local.aws.deploy", description="Create the stack on moto."
    )
    parser.add_argument("--endpoint", required=True, help="address of the moto server")
    parser.add_argument("--packages", required=True, type=Path, help="JSON file that names the packages")
    parser.add_argument("--settings", default="{}", help="the stack's settings, as JSON")
    parser.add_argument("--stack", default=STACK)
    parser.add_argument("--variables", default="{}", help="JSON: variables of functions to replace")
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
    made = [{"type": each.type, "name": each.name, "id": each.id} for each in run.aws_resources]
    print(
        json.dumps(
            {"outputs": run.outputs, "left_out": account.skipped_operations, "resources": made}, default=str
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(_main())
