"""Maps gRPC statuses to the SDK's errors: one table, used by both clients for every kind of call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from gorggle import errors

# Codes without a row are faults of the server: ServerError.
ERROR_BY_STATUS: dict[grpc.StatusCode, type[errors.GorggleError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
    grpc.StatusCode.ABORTED: errors.SupersededError,
    grpc.StatusCode.DATA_LOSS: errors.DataLossError,
    grpc.StatusCode.UNAUTHENTICATED: errors.AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: errors.AuthenticationError,
    grpc.StatusCode.CANCELLED: errors.CallCancelledError,
}

# Reasons (google.rpc.ErrorInfo) that refine a status.
ERROR_BY_REASON: dict[str, type[errors.GorggleError]] = {"NO_FACE": errors.NoFaceError}

ERROR_DOMAIN = "gorggle"
DETAILS_TRAILER = "grpc-status-details-bin"

Trailers = Iterable[tuple[str, str | bytes]]


class RpcStatus(NamedTuple):
    """Status of a failed call."""

    code: grpc.StatusCode
    details: str | None
    trailers: Trailers | None

    @classmethod
    def from_error(cls, error: grpc.RpcError) -> RpcStatus:
        """Return the status of a gRPC error, of a synchronous or an asyncio call."""
        failed: Any = error
        return cls(failed.code(), failed.details(), failed.trailing_metadata())


class StatusDetails(NamedTuple):
    """What the server says about an error, from the google.rpc messages in its trailer.

    Attributes:
        reason: empty if the error does not come from a Gorggle server.
        request_id: the call's id in the server's log; empty if unknown.
        retry_after_s: delay before the next attempt; None if the server gave none.
    """

    reason: str = ""
    request_id: str = ""
    retry_after_s: float | None = None


def to_error(status: RpcStatus, *, target: str, request_id: str = "") -> errors.GorggleError:
    """Return the error for a failed call.

    Args:
        status: how the call ended.
        target: the server's address, for the text of connection errors.
        request_id: the call's id if the caller knows it; otherwise it is taken from the status.
    """
    details = parse_details(status)
    kind = _choose_error_class(status, details.reason)
    known_id = request_id or details.request_id
    if issubclass(kind, errors.OverloadedError):
        text = status.details or "the server is full"
        return kind(text, code=status.code, request_id=known_id, retry_after_s=details.retry_after_s)
    return kind(_build_message(status, details.reason, target), code=status.code, request_id=known_id)


def parse_details(status: RpcStatus) -> StatusDetails:
    """Parse the google.rpc.Status in a call's trailers; empty details if there is none or it is malformed."""
    encoded = next((value for key, value in status.trailers or () if key == DETAILS_TRAILER), None)
    if not isinstance(encoded, bytes):
        return StatusDetails()
    # Imported here because they are not needed by calls that succeed.
    from google.rpc import error_details_pb2, status_pb2

    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s = None
    try:
        for detail in status_pb2.Status.FromString(encoded).details:
            detail.Unpack(info)
            if detail.Unpack(retry):
                delay = retry.retry_delay
                retry_after_s = max(0.0, delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        return StatusDetails()
    if info.domain != ERROR_DOMAIN:
        return StatusDetails(retry_after_s=retry_after_s)
    return StatusDetails(info.reason, info.metadata.get("request_id", ""), retry_after_s)


def _choose_error_class(status: RpcStatus, reason: str) -> type[errors.GorggleError]:
    kind = ERROR_BY_STATUS.get(status.code, errors.ServerError)
    refined = ERROR_BY_REASON.get(reason)
    if refined is not None and issubclass(refined, kind):
        return refined
    # gRPC itself refuses a message beyond the server's size limit with the status of an overloaded server.
    if kind is errors.OverloadedError and "larger than max" in (status.details or ""):
        return errors.InvalidRequestError
    return kind


def _build_message(status: RpcStatus, reason: str, target: str) -> str:
    text = status.details or status.code.name.lower().replace("_", " ")
    if status.code is grpc.StatusCode.UNAVAILABLE and not reason:
        return f"no connection to {target}: {text}"
    if status.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return f"{text}: send the media in pieces, with transcribe()"
    if status.code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{target} is not a Gorggle server, or an older version: {text}"
    return text
