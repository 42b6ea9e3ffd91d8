"""The four steps in which Secrets Manager renews a secret.

It calls a function with one step at a time and may repeat any: https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Value = dict[str, Any]


@dataclass(frozen=True)
class RotationSteps:
    """What is special to one kind of secret.

    ``create`` makes the next value from the current one (None the first time); ``put`` tells others about it, such as
    who checks it; ``test`` raises where the next value would not serve.
    """

    create: Callable[[Value | None], Value]
    test: Callable[[Value], None]
    put: Callable[[Value], None] = lambda _value: None


def rotate(client: Any, event: Mapping[str, str], steps: RotationSteps) -> None:
    """Do the step that the event asks for; done twice it changes nothing.

    A secret's first version is current as soon as it is written: being current does not mean that all steps are done.

    Raises:
        ValueError: the version is not one that is being made, or its value fails the test.
    """
    secret, version = event["SecretId"], event["ClientRequestToken"]
    stages = client.describe_secret(SecretId=secret).get("VersionIdsToStages", {})
    labels = stages.get(version, [])
    if "AWSPREVIOUS" in labels:
        return  # a late repetition: a newer value holds by now
    match event["Step"]:
        case "createSecret":
            if _read_version(client, secret, version) is None:
                value = steps.create(read_current(client, secret))
                client.put_secret_value(
                    SecretId=secret,
                    ClientRequestToken=version,
                    SecretString=json.dumps(value),
                    VersionStages=["AWSPENDING"],
                )
        case "setSecret":
            steps.put(_read_pending(client, secret, version))
        case "testSecret":
            steps.test(_read_pending(client, secret, version))
        case "finishSecret":
            _read_pending(client, secret, version)
            if "AWSCURRENT" not in labels:
                old = next((each for each, stage in stages.items() if "AWSCURRENT" in stage), None)
                leaving = {"RemoveFromVersionId": old} if old else {}
                client.update_secret_version_stage(
                    SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=version, **leaving
                )
        case step:
            raise ValueError(f"{step!r} is no step of a rotation")


def read_current(client: Any, secret: str) -> Value | None:
    """A secret's current value; None where it has none yet."""
    return _read(client, SecretId=secret, VersionStage="AWSCURRENT")


def _read_version(client: Any, secret: str, version: str) -> Value | None:
    return _read(client, SecretId=secret, VersionId=version)


def _read(client: Any, **which: str) -> Value | None:
    try:
        answer = client.get_secret_value(**which)
    except client.exceptions.ResourceNotFoundException:
        return None
    value: Value = json.loads(answer["SecretString"])
    return value


def _read_pending(client: Any, secret: str, version: str) -> Value:
    value = _read_version(client, secret, version)
    if value is None:
        raise ValueError(f"version {version} of {secret} was never created: its rotation must start anew")
    return value
