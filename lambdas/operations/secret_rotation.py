"""The four steps of a secret rotation by Secrets Manager.

The function is called with one step at a time, and any step may be repeated:
https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Value = dict[str, Any]


@dataclass(frozen=True)
class RotationSteps:
    """The parts of a rotation that depend on the kind of secret.

    ``create`` returns the next value from the current one (None the first time); ``put`` publishes it to its users, such as
    a verifier; ``test`` raises if the next value is unusable.
    """

    create: Callable[[Value | None], Value]
    test: Callable[[Value], None]
    put: Callable[[Value], None] = lambda _value: None


def rotate(client: Any, event: Mapping[str, str], steps: RotationSteps) -> None:
    """Perform the step of the event; idempotent.

    A secret's first version is current as soon as it is written, so being current does not mean that all steps are done.

    Raises:
        ValueError: the version is not pending, or its value fails the test.
    """
    secret, version = event["SecretId"], event["ClientRequestToken"]
    stages = client.describe_secret(SecretId=secret).get("VersionIdsToStages", {})
    labels = stages.get(version, [])
    if "AWSPREVIOUS" in labels:
        return  # a late repetition: a newer value is current
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
                old = next((candidate for candidate, stage in stages.items() if "AWSCURRENT" in stage), None)
                previous = {"RemoveFromVersionId": old} if old else {}
                client.update_secret_version_stage(
                    SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=version, **previous
                )
        case step:
            raise ValueError(f"{step!r} is not a rotation step")


def read_current(client: Any, secret: str) -> Value | None:
    """Return a secret's current value; None if it has none yet."""
    return _read(client, SecretId=secret, VersionStage="AWSCURRENT")


def _read_version(client: Any, secret: str, version: str) -> Value | None:
    return _read(client, SecretId=secret, VersionId=version)


def _read(client: Any, **selector: str) -> Value | None:
    try:
        response = client.get_secret_value(**selector)
    except client.exceptions.ResourceNotFoundException:
        return None
    value: Value = json.loads(response["SecretString"])
    return value


def _read_pending(client: Any, secret: str, version: str) -> Value:
    value = _read_version(client, secret, version)
    if value is None:
        raise ValueError(f"version {version} of {secret} was never created: restart its rotation")
    return value
