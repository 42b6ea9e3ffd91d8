"""Maps the server's errors to gRPC statuses: one table, applied by one interceptor to every kind of call.

Statuses follow the gRPC status guide (grpc.io/docs/guides/status-codes), their details AIP-193: a
``google.rpc.ErrorInfo`` with a reason and the request id, a ``BadRequest`` with the field of an invalid request, and a
``RetryInfo`` with the retry delay of an overloaded server.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gorggle_server import errors
from gorggle_server.grpc_server.interceptors.base import CallInterceptor, Context
from gorggle_server.grpc_server.response_encoding import encode_duration
from gorggle_server.logging_setup import request_id

_log = logging.getLogger(__name__)

# A status is sent after all responses, so a client that does not read them blocks it.
ABORT_TIMEOUT_S = 5.0

ERROR_DOMAIN = "gorggle"
DETAILS_TRAILER = "grpc-status-details-bin"
# gRPC limits all trailers together to 8 KiB by default, and percent-encodes the text.
MAX_TEXT_BYTES = 1024

# Status and reason. The first matching row decides, so subclasses precede their bases.
STATUS_BY_ERROR: tuple[tuple[type[errors.GorggleError], grpc.StatusCode, str], ...] = (
    (errors.InvalidMediaError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MEDIA"),
    (errors.InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    (errors.OutOfRangeError, grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE"),
    (errors.NoFaceError, grpc.StatusCode.FAILED_PRECONDITION, "NO_FACE"),
    (errors.PreconditionError, grpc.StatusCode.FAILED_PRECONDITION, "FAILED_PRECONDITION"),
    (errors.AuthenticationError, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    (errors.IdleError, grpc.StatusCode.DEADLINE_EXCEEDED, "IDLE"),
    (errors.NotReadyError, grpc.StatusCode.UNAVAILABLE, "NOT_READY"),
    (errors.SupersededError, grpc.StatusCode.ABORTED, "SUPERSEDED"),
    (errors.DataLossError, grpc.StatusCode.DATA_LOSS, "DATA_LOSS"),
    # A broken model is a fault of the server: its text is logged, not sent.
    (errors.ModelFormatError, grpc.StatusCode.INTERNAL, "INTERNAL"),
)


def _classify(error: Exception) -> tuple[grpc.StatusCode, str]:
    rows = ((code, reason) for kind, code, reason in STATUS_BY_ERROR if isinstance(error, kind))
    return next(rows, (grpc.StatusCode.INTERNAL, "INTERNAL"))


class ErrorInterceptor(CallInterceptor):
    """Assigns a request id to each call and maps exceptions of its handler to a status.

    Args:
        on_error: called with each error.
    """

    def __init__(self, on_error: Callable[[Exception], None] = lambda _: None) -> None:
        self._on_error = on_error

    @asynccontextmanager
    async def wrap_call(self, details: grpc.HandlerCallDetails, context: Context) -> AsyncIterator[None]:
        """Map what the call raises to its status."""
        request_id.set(uuid.uuid4().hex)
        try:
            yield
        except (aio.AbortError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            self._on_error(error)
            await _abort(context, error)


async def _abort(context: Context, error: Exception) -> None:
    code, reason = _classify(error)
    if code is grpc.StatusCode.INTERNAL:
        _log.error("request %s failed", request_id.get(), exc_info=error)
        text = f"internal error; the server's log has details under request id {request_id.get()}"
    else:
        text = str(error).encode(errors="replace")[:MAX_TEXT_BYTES].decode(errors="ignore")
        _log.info("request %s refused: %s: %s", request_id.get(), code.name, type(error).__name__)
    try:
        async with asyncio.timeout(ABORT_TIMEOUT_S):
            trailer = (DETAILS_TRAILER, _encode_status(code, reason, text, error))
            await context.abort(code, text, (trailer,))
    except TimeoutError:
        # The client does not read its responses. Cancelling makes HTTP/2 reset the stream.
        raise asyncio.CancelledError from None


def _encode_status(code: grpc.StatusCode, reason: str, text: str, error: Exception) -> bytes:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=reason, domain=ERROR_DOMAIN, metadata={"request_id": request_id.get()}
        )
    ]
    if isinstance(error, errors.InvalidRequestError) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=text)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.OverloadedError):
        details.append(error_details_pb2.RetryInfo(retry_delay=encode_duration(error.retry_after_s)))
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    encoded: bytes = status.SerializeToString()
    return encoded
