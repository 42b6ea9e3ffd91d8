"""Converts an error caught by the state machine to a reason for users."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# DynamoDB items are limited to 400 kB.
MAX_TEXT_CHARS = 1000

# Errors whose message may be shown to users: ours, and the SDK's.
USER_FACING_ERRORS = frozenset(
    {
        *("InvalidMediaError", "ObjectNotFoundError", "JobNotFoundError", "SourceFailedError"),
        *("SourceTimeoutError", "FleetTimeoutError", "ServerStalledError", "NoTranscriptError"),
        *("AwsUnavailableError", "FusionInputError"),
        *("InvalidRequestError", "NoFaceError", "NotFoundError", "OverloadedError", "UnavailableError"),
        *("DeadlineError", "DataLossError", "AuthenticationError", "CallCancelledError", "PreconditionError"),
    }
)
# Errors raised by Step Functions and Lambda.
_SERVICE_ERRORS = {
    "States.Timeout": "a step timed out",
    "States.HeartbeatTimeout": "a step stopped responding",
    "States.DataLimitExceeded": "a step's output is too large",
    "Sandbox.Timedout": "a function timed out",
    "Lambda.Unknown": "a function exited without a result",
    "Runtime.ExitError": "a function exited without a result",
    "Runtime.OutOfMemory": "a function ran out of memory",
    "Runtime.ImportModuleError": "a function's deployment is incomplete",
    "TIMED_OUT": "the job timed out",
    "ABORTED": "the job was stopped",
}


@dataclass(frozen=True)
class FailureReason:
    """The error's name and a message for users."""

    error: str
    text: str


def parse_failure(failure: Mapping[str, Any]) -> FailureReason:
    """Parse the output of a Catch: ``{"Error": NAME, "Cause": TEXT}``.

    The message of an unexpected error is not shown because it may contain private data; the function's log has it.
    """
    name = str(failure.get("Error") or "Unknown")
    message = _get_message(failure.get("Cause"))
    if name in USER_FACING_ERRORS and message:
        return FailureReason(name, message[:MAX_TEXT_CHARS])
    return FailureReason(name, _SERVICE_ERRORS.get(name, f"internal error ({name})"))


def _get_message(cause: Any) -> str:
    """Return the message from a Lambda's cause, which is JSON; a state's own cause is the message."""
    text = str(cause or "")
    try:
        document = json.loads(text)
    except ValueError:
        return text
    if isinstance(document, dict):
        return str(document.get("errorMessage") or "")
    return text
