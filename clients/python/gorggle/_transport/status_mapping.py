"""From gRPC statuses to the SDK's errors: one table, used by both clients for every kind of call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from gorggle import errors

# Codes that stand in no row are faults of the server: ServerError.
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

# The server's trailer with the name of its error, for two causes that share one status.
CAUSE_TRAILER = "gorggle-error"
ERROR_BY_REASON: dict[str, type[errors.GorggleError]] = {"NoFaceError": errors.NoFaceError}

REQUEST_ID_TRAILER = "gorggle-request-id"
DETAILS_TRAILER = "grpc-status-details-bin"

Trailers = Iterable[tuple[str, str | bytes]]


class RpcStatus(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str | None
    trailers: Trailers | None

    @classmethod
    def from_error(cls, error: grpc.RpcError) -> RpcStatus:
        """The status that an error of gRPC's carries; both of its kinds of call raise errors of one form."""
        failed: Any = error
        return cls(failed.code(), failed.details(), failed.trailing_metadata())


def get_retry_delay_s(status: RpcStatus) -> float | None:
    """How long the server asks to wait before the next attempt; None where it does not say."""
    trailer = {key: value for key, value in status.trailers or ()}  # noqa: C416 - grpc.aio's Metadata is no mapping
    return parse_retry_delay_s(trailer.get(DETAILS_TRAILER))


def to_error(status: RpcStatus, *, target: str, request_id: str = "") -> errors.GorggleError:
    """The error for a call that did not end well.

    The server's address, ``target``, is told where the connection itself failed. ``request_id`` is the call's id as
    far as the caller knows it; a trailer may tell it too.
    """
    code, details, trailers = status
    trailer = {key: value for key, value in trailers or ()}  # noqa: C416 - grpc.aio's Metadata is no mapping
    cause = trailer.get(CAUSE_TRAILER)
    kind = _choose_error_class(code, details or "", cause)
    known_id = request_id or str(trailer.get(REQUEST_ID_TRAILER, ""))
    if issubclass(kind, errors.OverloadedError):
        delay_s = parse_retry_delay_s(trailer.get(DETAILS_TRAILER))
        return kind(details or "the server is full", code=code, request_id=known_id, retry_after_s=delay_s)
    return kind(_build_message(code, details, cause, target), code=code, request_id=known_id)


def _choose_error_class(
    code: grpc.StatusCode, details: str, cause: str | bytes | None
) -> type[errors.GorggleError]:
    kind = ERROR_BY_STATUS.get(code, errors.ServerError)
    refined = ERROR_BY_REASON.get(str(cause))
    if refined is not None and issubclass(refined, kind):
        return refined
    # gRPC's own refusal of a message beyond the server's limit bears the same status as a full server.
    if kind is errors.OverloadedError and "larger than max" in details:
        return errors.InvalidRequestError
    return kind


def _build_message(code: grpc.StatusCode, details: str | None, cause: str | bytes | None, target: str) -> str:
    text = details or code.name.lower().replace("_", " ")
    if code is grpc.StatusCode.UNAVAILABLE and cause is None:
        return f"no connection to {target}: {text}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return f"{text}: send the media in pieces, with transcribe()"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{target} is no Gorggle server, or an older one: {text}"
    return text


def parse_retry_delay_s(status_details: str | bytes | None) -> float | None:
    """The delay of the google.rpc.RetryInfo in a serialized google.rpc.Status; None where there is none."""
    if not isinstance(status_details, bytes):
        return None
    try:
        for detail in _STATUS_DETAILS.FromString(status_details).details:
            if detail.type_url.endswith("/google.rpc.RetryInfo"):
                delay = _RETRY_INFO.FromString(detail.value).retry_delay
                return max(0.0, float(delay.seconds + delay.nanos / 1e9))
    except DecodeError:
        pass  # a delay that cannot be read is a delay that was not given
    return None


def _status_messages() -> tuple[Any, Any]:
    """Message classes for the parts of google/rpc/{status,error_details}.proto that are read here.

    The published classes come with googleapis-common-protos, which the SDK does not depend on. These have the same
    field numbers, hence the same bytes, and live in a pool of their own, so that both can be in one process.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="gorggle/status_details.proto", package="gorggle.internal")
    for message, name, number, kind, type_name in [
        ("Status", "details", 3, field.TYPE_MESSAGE, ".gorggle.internal.Any"),
        ("Any", "type_url", 1, field.TYPE_STRING, None),
        ("Any", "value", 2, field.TYPE_BYTES, None),
        ("RetryInfo", "retry_delay", 1, field.TYPE_MESSAGE, ".gorggle.internal.Duration"),
        ("Duration", "seconds", 1, field.TYPE_INT64, None),
        ("Duration", "nanos", 2, field.TYPE_INT32, None),
    ]:
        if not file.message_type or file.message_type[-1].name != message:
            file.message_type.add(name=message)
        label = field.LABEL_REPEATED if name == "details" else field.LABEL_OPTIONAL
        file.message_type[-1].field.add(name=name, number=number, type=kind, type_name=type_name, label=label)
    pool: Any = descriptor_pool.DescriptorPool()
    messages = pool.AddSerializedFile(file.SerializeToString()).message_types_by_name
    status, retry_info = (message_factory.GetMessageClass(messages[name]) for name in ("Status", "RetryInfo"))
    return status, retry_info


_STATUS_DETAILS, _RETRY_INFO = _status_messages()
