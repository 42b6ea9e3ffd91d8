"""AWS clients, cached per process, and classification of their transient errors."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from gorggle_lambdas.common.errors import AwsUnavailableError

# Presigned URLs require signature version 4 if the bucket is encrypted with a KMS key.
_CONFIG: Any = Config(
    connect_timeout=5,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 5},
    signature_version="v4",
)
# Virtual-hosted URLs name the region. The global endpoint redirects for hours after a bucket's creation, and browsers
# do not follow a cross-origin redirect.
_S3_CONFIG: Any = _CONFIG.merge(Config(signature_version="s3v4", s3={"addressing_style": "virtual"}))

# Transient error codes of all services used here; other errors with status 5xx count too.
_TRANSIENT_CODES = frozenset(
    {
        *("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"),
        *("RequestLimitExceeded", "RequestThrottled", "ProvisionedThroughputExceededException", "SlowDown"),
        *("LimitExceededException", "InternalFailure", "InternalServerError", "InternalFailureException"),
        *("ServiceUnavailable", "ServiceUnavailableException", "TransactionInProgressException"),
        *("KMSThrottlingException", "RequestTimeout", "RequestTimeTooSkewed", "ScalingActivityInProgress"),
    }
)
_NETWORK_ERRORS = (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError, ConnectionClosedError)


@cache
def client(service: str) -> Any:
    """Return the process's client of a service."""
    return boto3.client(service, config=_S3_CONFIG if service == "s3" else _CONFIG)


@cache
def table(name: str) -> Any:
    """Return a DynamoDB table; its items have Python types, with ``Decimal`` for numbers."""
    return boto3.resource("dynamodb", config=_CONFIG).Table(name)


def get_error_code(error: ClientError) -> str:
    """Return the service's error code."""
    return str(error.response.get("Error", {}).get("Code", ""))


def as_transient_error(error: BaseException) -> AwsUnavailableError | None:
    """Return the error to raise instead of a transient failure; None if it is not transient."""
    if isinstance(error, _NETWORK_ERRORS):
        return AwsUnavailableError(f"an AWS service could not be reached: {error}")
    if not isinstance(error, ClientError):
        return None
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if get_error_code(error) in _TRANSIENT_CODES or status >= 500:
        return AwsUnavailableError(f"{error.operation_name} is temporarily unavailable: {error}")
    return None
