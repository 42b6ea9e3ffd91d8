"""Lambda: rotates the operator's API token.

The token is in a separate secret; the API's authorizer reads hashes only.
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
TOKEN_BYTES = 32  # random bytes: unguessable, so a plain hash suffices


def handler(event: Mapping[str, str], _context: object) -> None:
    """Perform one step of a rotation."""
    client = boto3.client("secretsmanager")

    def put(value: secret_rotation.Value) -> None:
        hashes = read_token_hashes(client)
        hashes[OWNER] = hash_token(value["token"])
        client.put_secret_value(SecretId=os.environ["TOKENS_SECRET"], SecretString=json.dumps(hashes))

    def test(value: secret_rotation.Value) -> None:
        if read_token_hashes(client).get(OWNER) != hash_token(value["token"]):
            raise ValueError("the token's hash is not among the API's")

    secret_rotation.rotate(
        client, event, secret_rotation.RotationSteps(create=_create_token, test=test, put=put)
    )


def hash_token(token: str) -> str:
    """Return the hash that the API stores of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_token_hashes(client: Any) -> dict[str, str]:
    """Return the hashes of valid API tokens, by name."""
    return secret_rotation.read_current(client, os.environ["TOKENS_SECRET"]) or {}


def _create_token(_current: secret_rotation.Value | None) -> secret_rotation.Value:
    return {"token": secrets.token_urlsafe(TOKEN_BYTES)}
