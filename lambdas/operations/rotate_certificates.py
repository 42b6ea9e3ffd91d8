"""Lambda: issues and rotates the certificates of the server and its clients.

They are never in Pulumi's state: the first rotation, which Secrets Manager starts when the stack is deployed, also creates
the authority.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import uuid
from collections.abc import Mapping
from typing import Any

import boto3

from gorggle_lambdas.operations import certificate_authority, secret_rotation

CLIENT_NAME = "pipeline"
AUTHORITY_NAME = "Gorggle"
SERVER_SECRET_SUFFIX = "/server_certificate"  # noqa: S105 - a name, not a secret


def handler(event: Mapping[str, str], _context: object) -> None:
    """Perform one step of a rotation."""
    client = boto3.client("secretsmanager")
    now = dt.datetime.now(dt.UTC)
    name = client.describe_secret(SecretId=event["SecretId"])["Name"]
    is_server = name.endswith(SERVER_SECRET_SUFFIX)
    subject = os.environ["SERVER_NAME"] if is_server else CLIENT_NAME

    def create(_current: secret_rotation.Value | None) -> secret_rotation.Value:
        authorities = load_current_authorities(client, os.environ["AUTHORITY_SECRET"], now)
        identity = certificate_authority.issue_identity(authorities, subject, is_server=is_server, now=now)
        return dataclasses.asdict(identity)

    def test(value: secret_rotation.Value) -> None:
        certificate_authority.verify_identity(certificate_authority.Identity(**value), now)

    secret_rotation.rotate(client, event, secret_rotation.RotationSteps(create, test))


def load_current_authorities(
    client: Any, secret: str, now: dt.datetime
) -> list[certificate_authority.CertificateAuthority]:
    """Return the valid authorities; create, renew and store them when due."""
    stored = _read_authorities(client, secret)
    authorities = certificate_authority.renew_authorities(stored, AUTHORITY_NAME, now)
    if len(authorities) == len(stored) and authorities[0] is stored[0]:
        return authorities
    newest = stored[0].certificate.serial_number if stored else 0
    try:
        client.put_secret_value(
            SecretId=secret,
            # Two secrets are rotated at once in a new stack. Both propose an authority under the same version, of which
            # Secrets Manager accepts the first and rejects the second.
            ClientRequestToken=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{secret}/{newest}")),
            SecretString=json.dumps([authority.pem for authority in authorities]),
        )
    except client.exceptions.ResourceExistsException:
        return _read_authorities(client, secret)
    return authorities


def _read_authorities(client: Any, secret: str) -> list[certificate_authority.CertificateAuthority]:
    try:
        response = client.get_secret_value(SecretId=secret)
    except client.exceptions.ResourceNotFoundException:
        return []
    return [
        certificate_authority.CertificateAuthority.parse(authority)
        for authority in json.loads(response["SecretString"])
    ]
