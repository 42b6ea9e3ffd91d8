"""Lambda: makes and renews the certificates of the server and of its clients.

Nothing of them is in Pulumi's state or in anybody's hands: the first rotation, which Secrets Manager runs as soon as
the stack stands, makes the authority too.
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
    """Do one step of a rotation."""
    client = boto3.client("secretsmanager")
    now = dt.datetime.now(dt.UTC)
    name = client.describe_secret(SecretId=event["SecretId"])["Name"]
    is_server = name.endswith(SERVER_SECRET_SUFFIX)
    bearer = os.environ["SERVER_NAME"] if is_server else CLIENT_NAME

    def create(_current: secret_rotation.Value | None) -> secret_rotation.Value:
        authorities = load_current_authorities(client, os.environ["AUTHORITY_SECRET"], now)
        made = certificate_authority.issue_identity(authorities, bearer, is_server=is_server, now=now)
        return dataclasses.asdict(made)

    def test(value: secret_rotation.Value) -> None:
        certificate_authority.verify_identity(certificate_authority.Identity(**value), now)

    secret_rotation.rotate(client, event, secret_rotation.RotationSteps(create, test))


def load_current_authorities(
    client: Any, secret: str, now: dt.datetime
) -> list[certificate_authority.CertificateAuthority]:
    """The authorities that hold now; made, renewed and kept where it is time to."""
    kept = _read_authorities(client, secret)
    authorities = certificate_authority.renew_authorities(kept, AUTHORITY_NAME, now)
    if len(authorities) == len(kept) and authorities[0] is kept[0]:
        return authorities
    newest = kept[0].certificate.serial_number if kept else 0
    try:
        client.put_secret_value(
            SecretId=secret,
            # Two secrets are rotated at once when a stack is new. Both propose an authority under the same version,
            # of which Secrets Manager takes the first and refuses the second.
            ClientRequestToken=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{secret}/{newest}")),
            SecretString=json.dumps([each.pem for each in authorities]),
        )
    except client.exceptions.ResourceExistsException:
        return _read_authorities(client, secret)
    return authorities


def _read_authorities(client: Any, secret: str) -> list[certificate_authority.CertificateAuthority]:
    try:
        answer = client.get_secret_value(SecretId=secret)
    except client.exceptions.ResourceNotFoundException:
        return []
    return [
        certificate_authority.CertificateAuthority.parse(each) for each in json.loads(answer["SecretString"])
    ]
