"""Client of the inference server, connected by mutual TLS, and the server's errors by kind."""

from __future__ import annotations

from aws_lambda_powertools.utilities.parameters import SecretsProvider

from gorggle import Client, errors
from gorggle_lambdas.common import aws_clients

# Certificates are rotated while functions stay warm.
SECRET_MAX_AGE_S = 300
CONNECT_TIMEOUT_S = 10.0

SERVER_ERRORS = (
    # Transient: the state machine retries the window.
    errors.OverloadedError,
    errors.UnavailableError,
    errors.DeadlineError,
    errors.DataLossError,
    errors.SupersededError,
    errors.CallCancelledError,
    # Permanent: the result lacks the window.
    errors.NoFaceError,
    errors.PreconditionError,
    errors.InvalidRequestError,
    errors.NotFoundError,
    errors.AuthenticationError,
    errors.ConfigurationError,
    errors.ServerError,
)


def connect_to_server(address: str, name: str, secret_arn: str) -> Client:
    """Connect to the server, once per invocation.

    A frozen Lambda loses idle connections, and each new connection is balanced over the fleet.

    Args:
        address: HOST:PORT of the load balancer.
        name: the name in the server's certificate.
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
