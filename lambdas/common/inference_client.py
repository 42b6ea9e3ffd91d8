"""Client of the inference server, connected by mutual TLS, and the server's errors by kind."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the functions that call the server, see ``functions.toml``.

    Attributes:
        server_address: HOST:PORT of the load balancer.
        server_name: the name in the server's certificate.
        server_client_secret: ARN; holds {"ca", "certificate", "key"}, PEM.
    """

    server_address: str
    server_name: str
    server_client_secret: str


def connect_to_server(settings: ServerSettings) -> Client:
    """Connect to the server, once per invocation.

    A frozen Lambda loses idle connections, and each new connection is balanced over the fleet.
    """
    provider = SecretsProvider(boto3_client=aws_clients.client("secretsmanager"))
    secret = provider.get(settings.server_client_secret, max_age=SECRET_MAX_AGE_S, transform="json")
    assert isinstance(secret, dict), "the secret holds a JSON object"
    return Client(
        settings.server_address,
        root_certificates=secret["ca"].encode(),
        client_certificate=secret["certificate"].encode(),
        client_key=secret["key"].encode(),
        server_name=settings.server_name or None,
        connect_timeout_s=CONNECT_TIMEOUT_S,
    )
