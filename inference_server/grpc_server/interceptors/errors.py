"""From the server's errors to gRPC statuses: one table, applied by one interceptor to every kind of call.

Statuses follow the gRPC status guide (grpc.io/docs/guides/status-codes); the retry delay of an overloaded server is a
``google.rpc.RetryInfo`` in the standard ``grpc-status-details-bin`` trailer. The trailer ``gorggle-error`` names the
error's class, for clients that must tell two causes of one status apart.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gorggle_server import errors
from gorggle_server.grpc_server.interceptors.base import CallInterceptor, Context
from gorggle_server.logging_setup import request_id

_log = logging.getLogger(__name__)

# A status waits behind the responses that were not read yet.
ABORT_TIMEOUT_S = 5.0

# The first row that fits decides, so subclasses stand above their bases.
STATUS_BY_ERROR: tuple[tuple[type[errors.GorggleError], grpc.StatusCode], ...] = (
    (errors.InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.OutOfRangeError, grpc.StatusCode.OUT_OF_RANGE),
    (errors.PreconditionError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.AuthenticationError, grpc.StatusCode.UNAUTHENTICATED),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.IdleError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.NotReadyError, grpc.StatusCode.UNAVAILABLE),
    (errors.SupersededError, grpc.StatusCode.ABORTED),
    (errors.DataLossError, grpc.StatusCode.DATA_LOSS),
    # A broken model is the server's own fault: its text goes to the log, not to a caller.
    (errors.ModelFormatError, grpc.StatusCode.INTERNAL),
)


def get_status_code(error: Exception) -> grpc.StatusCode:
    """The status that an error ends a call with; INTERNAL for what nobody planned."""
    return next((code for kind, code in STATUS_BY_ERROR if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


class ErrorInterceptor(CallInterceptor):
    """Gives each call an id and ends it with the right status when its handler raises.

    Args:
        on_error: is told of each error.
    """

    def __init__(self, on_error: Callable[[Exception], None] = lambda _: None) -> None:
        self._on_error = on_error

    @asynccontextmanager
    async def wrap_call(self, details: grpc.HandlerCallDetails, context: Context) -> AsyncIterator[None]:
        """Turn what a call raises into its status."""
        request_id.set(uuid.uuid4().hex)
        try:
            yield
        except (aio.AbortError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            self._on_error(error)
            await _abort(context, error)


async def _abort(context: Context, error: Exception) -> None:
    code, trailer = get_status_code(error), [("gorggle-error", type(error).__name__)]
    if code is grpc.StatusCode.INTERNAL:
        _log.error("request %s failed", request_id.get(), exc_info=error)
        text, trailer = f"internal error; the server's log has more under {request_id.get()}", []
    else:
        text = str(error)
        _log.info("request %s refused: %s: %s", request_id.get(), code.name, type(error).__name__)
    if isinstance(error, errors.OverloadedError):
        trailer.append(("grpc-status-details-bin", _encode_retry_info(code, text, error.retry_after_s)))  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(ABORT_TIMEOUT_S):
            await context.abort(code, text, tuple(trailer))
    except TimeoutError:
        # Who reads nothing does not read this either: the call is let go of, and HTTP/2 resets its stream.
        raise asyncio.CancelledError from None


def _encode_retry_info(code: grpc.StatusCode, text: str, retry_after_s: float) -> bytes:
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(int(retry_after_s * 1e9))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status: bytes = status_pb2.Status(code=code.value[0], message=text, details=[detail]).SerializeToString()
    return status
