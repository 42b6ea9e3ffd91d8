"""Lambda: renews the operator's API token.

The token itself is in a secret of its own; who checks calls knows its hash alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

import boto3

from gorggle_lambdas.operations import secret_rotation

OWNER = "operator"
TOKEN_BYTES = 32  # of randomness: none can be guessed, so a plain hash suffices


def handler(event: Mapping[str, str], _context: object) -> None:
    """Do one step of a rotation."""
    client = boto3.client("secretsmanager")

    def put(value: secret_rotation.Value) -> None:
        hashes = read_token_hashes(client)
        hashes[OWNER] = hash_token(value["token"])
        client.put_secret_value(SecretId=os.environ["TOKENS_SECRET"], SecretString=json.dumps(hashes))

    def test(value: secret_rotation.Value) -> None:
        if read_token_hashes(client).get(OWNER) != hash_token(value["token"]):
            raise ValueError("the token's hash is not among those that the API knows")

    secret_rotation.rotate(
        client, event, secret_rotation.RotationSteps(create=_create_token, test=test, put=put)
    )


def hash_token(token: str) -> str:
    """What the API keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_token_hashes(client: Any) -> dict[str, str]:
    """Names and hashes of the tokens that the API takes."""
    return secret_rotation.read_current(client, os.environ["TOKENS_SECRET"]) or {}


def _create_token(_current: secret_rotation.Value | None) -> secret_rotation.Value:
    return {"token": secrets.token_urlsafe(TOKEN_BYTES)}
