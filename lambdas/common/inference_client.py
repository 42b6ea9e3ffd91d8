"""The GPU server: the client that speaks to it by mutual TLS."""

from __future__ import annotations

from aws_lambda_powertools.utilities.parameters import SecretsProvider

from gorggle import Client
from gorggle_lambdas.common import aws_clients

# Certificates are renewed while functions stay warm.
SECRET_MAX_AGE_S = 300
CONNECT_TIMEOUT_S = 10.0


def connect_to_server(address: str, name: str, secret_arn: str) -> Client:
    """Connect to the server; a connection of its own for each invocation.

    A frozen Lambda drops idle connections, and a new connection is spread over the fleet anew.

    Args:
        address: HOST:PORT of the load balancer.
        name: the name on the server's certificate.
        secret_arn: holds {"ca", "certificate", "key"}, PEM.
    """
    provider = SecretsProvider(boto3_client=aws_clients.client("secretsmanager"))
    secret = provider.get(secret_arn, max_age=SECRET_MAX_AGE_S, transform="json")
    assert isinstance(secret, dict), "the secret holds a JSON object"
    return Client(
        address,
        root_certificates=secret["ca"].encode(),
        client_certificate=secret["certificate"].encode(),
        client_key=secret["key"].encode(),
        server_name=name or None,
        connect_timeout_s=CONNECT_TIMEOUT_S,
    )
