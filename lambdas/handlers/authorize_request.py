"""Lets calls with a known API token through, and says whose they are. The secret holds the tokens' hashes alone."""

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

# A token that was taken back works so long still; API Gateway keeps answers for a while, too.
SECRET_MAX_AGE_S = 60


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    tokens_secret: str


@instrument
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Answer API Gateway's question who calls, in its simple form."""
    request = APIGatewayAuthorizerEventV2(event)
    headers = {name.lower(): value for name, value in (request.get("headers") or {}).items()}
    owner = find_owner(headers.get("authorization", ""), _load_token_hashes())
    if owner is None:
        count("RejectedTokens")
        return APIGatewayAuthorizerResponseV2(authorize=False).asdict()
    return APIGatewayAuthorizerResponseV2(authorize=True, context={"owner": owner}).asdict()


def find_owner(authorization: str, hashes: Mapping[str, str]) -> str | None:
    """Whose token the header ``authorization: Bearer TOKEN`` shows; None where nobody's.

    Args:
        authorization: the header.
        hashes: SHA-256 of each known token, hexadecimal, by its owner's name.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    shown = hashlib.sha256(token.strip().encode()).hexdigest()
    # All are compared, each in constant time: how long it takes tells nothing.
    found = [name for name, known in hashes.items() if hmac.compare_digest(shown, known.lower())]
    return found[0] if found else None


def _load_token_hashes() -> Mapping[str, str]:
    provider = SecretsProvider(boto3_client=aws_clients.client("secretsmanager"))
    hashes = provider.get(load_settings(Settings).tokens_secret, max_age=SECRET_MAX_AGE_S, transform="json")
    assert isinstance(hashes, dict), "the secret holds a JSON object"
    return hashes
