"""Why something failed, from what the state machine knows of it: an error's name and its cause."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Longer texts help nobody, and an item holds 400 kB.
MAX_TEXT_CHARS = 1000

# Errors whose own text is made for people: ours, and the SDK's that come from the server.
USER_FACING_ERRORS = frozenset(
    {
        *(
            "InvalidMediaError",
            "ObjectNotFoundError",
            "JobNotFoundError",
            "SourceFailedError",
            "SourceTimeoutError",
        ),
        *(
            "FleetTimeoutError",
            "ServerStalledError",
            "NoTranscriptError",
            "AwsUnavailableError",
            "FusionInputError",
        ),
        *("InvalidRequestError", "NoFaceError", "NotFoundError", "OverloadedError", "UnavailableError"),
        *("DeadlineError", "DataLossError", "AuthenticationError", "CallCancelledError", "PreconditionError"),
    }
)
# Errors that Step Functions and Lambda raise themselves.
_SERVICE_ERRORS = {
    "States.Timeout": "a step took too long",
    "States.HeartbeatTimeout": "a step gave no sign of life for too long",
    "States.DataLimitExceeded": "a step answered too much",
    "Sandbox.Timedout": "a function took too long",
    "Lambda.Unknown": "a function ended without an answer",
    "Runtime.ExitError": "a function ended without an answer",
    "Runtime.OutOfMemory": "a function ran out of memory",
    "Runtime.ImportModuleError": "a function is not deployed whole",
    "TIMED_OUT": "the job took too long as a whole",
    "ABORTED": "the job was stopped",
}


@dataclass(frozen=True)
class FailureReason:
    """Why something failed: the error's name, and a text for people."""

    error: str
    text: str


def parse_failure(failure: Mapping[str, Any]) -> FailureReason:
    """Read what a Catch put into the state: ``{"Error": NAME, "Cause": TEXT}``.

    The text of an error that was not raised on purpose is not shown: it may hold what is nobody's business, and the
    function's log has it.
    """
    name = str(failure.get("Error") or "Unknown")
    message = _get_message(failure.get("Cause"))
    if name in USER_FACING_ERRORS and message:
        return FailureReason(name, message[:MAX_TEXT_CHARS])
    return FailureReason(name, _SERVICE_ERRORS.get(name, f"internal error ({name})"))


def _get_message(cause: Any) -> str:
    """The message within a Lambda's cause, which is JSON; a state's own cause is the message."""
    text = str(cause or "")
    try:
        document = json.loads(text)
    except ValueError:
        return text
    if isinstance(document, dict):
        return str(document.get("errorMessage") or "")
    return text
