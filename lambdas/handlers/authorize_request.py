"""API authorizer: checks bearer tokens against the hashes in a secret and returns the owner."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools.utilities.data_classes.api_gateway_authorizer_event import (
    APIGatewayAuthorizerEventV2,
    APIGatewayAuthorizerResponseV2,
)
from aws_lambda_powertools.utilities.parameters import SecretsProvider

from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.observability import count, instrument
from gorggle_lambdas.common.settings import load_settings

# Delay until a revoked token is rejected, in addition to API Gateway's cache.
SECRET_MAX_AGE_S = 60


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    tokens_secret: str


@instrument
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Answer an authorizer request of API Gateway, in the simple format."""
    request = APIGatewayAuthorizerEventV2(event)
    headers = {name.lower(): value for name, value in (request.get("headers") or {}).items()}
    owner = find_owner(headers.get("authorization", ""), _load_token_hashes())
    if owner is None:
        count("RejectedTokens")
        return APIGatewayAuthorizerResponseV2(authorize=False).asdict()
    return APIGatewayAuthorizerResponseV2(authorize=True, context={"owner": owner}).asdict()


def find_owner(authorization: str, hashes: Mapping[str, str]) -> str | None:
    """Return the owner of the token in the header ``authorization: Bearer TOKEN``; None if it is unknown.

    Args:
        authorization: the header.
        hashes: SHA-256 of each token, hexadecimal, by owner.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    token_hash = hashlib.sha256(token.strip().encode()).hexdigest()
    # Compare with all, each in constant time, so that the duration reveals nothing.
    owners = [name for name, expected in hashes.items() if hmac.compare_digest(token_hash, expected.lower())]
    return owners[0] if owners else None


def _load_token_hashes() -> Mapping[str, str]:
    provider = SecretsProvider(boto3_client=aws_clients.client("secretsmanager"))
    hashes = provider.get(load_settings(Settings).tokens_secret, max_age=SECRET_MAX_AGE_S, transform="json")
    assert isinstance(hashes, dict), "the secret holds a JSON object"
    return hashes
