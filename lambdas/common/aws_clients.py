"""Clients of AWS, made once a process, and which of their errors pass by themselves."""

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

# Presigned addresses need signature 4 where the bucket is encrypted with a KMS key.
_CONFIG: Any = Config(
    connect_timeout=5,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 5},
    signature_version="v4",
)
# With the bucket's name in the host, addresses name the region: a new bucket's name is known to S3's global address only
# hours later, and until then that redirects, which browsers do not follow from page to bucket.
_S3_CONFIG: Any = _CONFIG.merge(Config(signature_version="s3v4", s3={"addressing_style": "virtual"}))

# Names for "not now", over all the services used here; other errors with status 5xx count too.
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
    """The process's client of a service."""
    return boto3.client(service, config=_S3_CONFIG if service == "s3" else _CONFIG)


@cache
def table(name: str) -> Any:
    """A DynamoDB table; its items hold Python's own types, with ``Decimal`` for numbers."""
    return boto3.resource("dynamodb", config=_CONFIG).Table(name)


def get_error_code(error: ClientError) -> str:
    """The error's name, as the service gives it."""
    return str(error.response.get("Error", {}).get("Code", ""))


def as_transient_error(error: BaseException) -> AwsUnavailableError | None:
    """The error to raise instead where a service's failure passes by itself; None where it does not."""
    if isinstance(error, _NETWORK_ERRORS):
        return AwsUnavailableError(f"an AWS service could not be reached: {error}")
    if not isinstance(error, ClientError):
        return None
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if get_error_code(error) in _TRANSIENT_CODES or status >= 500:
        return AwsUnavailableError(f"{error.operation_name} is refused for the moment: {error}")
    return None
