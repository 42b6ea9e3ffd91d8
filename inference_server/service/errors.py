"""From the server's errors to gRPC statuses: one table, applied by one interceptor to every kind of call.

Statuses follow the gRPC status guide (grpc.io/docs/guides/status-codes); the retry delay of an overloaded server is a
``google.rpc.RetryInfo`` in the standard ``grpc-status-details-bin`` trailer. The trailer ``gorggle-error`` names the
error's class, for clients that must tell two causes of one status apart.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from inference_server import errors

_log = logging.getLogger(__name__)

# The first row that fits decides, so subclasses stand above their bases.
STATUS_OF_ERROR: tuple[tuple[type[errors.GorggleError], grpc.StatusCode], ...] = (
    (errors.InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.OutOfRangeError, grpc.StatusCode.OUT_OF_RANGE),
    (errors.PreconditionError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.IdleError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.NotReadyError, grpc.StatusCode.UNAVAILABLE),
    # A broken model is the server's own fault: its text goes to the log, not to a caller.
    (errors.ModelFormatError, grpc.StatusCode.INTERNAL),
)

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id")


def status_of(error: Exception) -> grpc.StatusCode:
    """The status that an error ends a call with; INTERNAL for what nobody planned."""
    return next((code for kind, code in STATUS_OF_ERROR if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


class ErrorInterceptor(aio.ServerInterceptor):
    """Gives each call an id and ends it with the right status when its handler raises."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return handler
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _answering(handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                _streaming(handler.stream_stream), handler.request_deserializer, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            _answering(handler.stream_unary), handler.request_deserializer, handler.response_serializer
        )


def _answering(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
        request_id.set(uuid.uuid4().hex)
        try:
            answer = behaviour(request, context)
            return await answer if asyncio.iscoroutine(answer) else answer
        except (aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            await _abort(context, error)

    return call


def _streaming(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        request_id.set(uuid.uuid4().hex)
        responses = behaviour(request, context)
        try:
            if asyncio.iscoroutine(responses):  # a handler that writes by itself (health's Watch)
                await responses
                return
            async for response in responses:
                yield response
        except (aio.AbortError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            await _abort(context, error)
        finally:
            if hasattr(responses, "aclose"):
                await responses.aclose()

    return call


async def _abort(context: aio.ServicerContext[Any, Any], error: Exception) -> None:
    code, trailer = status_of(error), [("gorggle-error", type(error).__name__)]
    if code is grpc.StatusCode.INTERNAL:
        _log.error("request %s failed", request_id.get(), exc_info=error)
        text, trailer = f"internal error; the server's log has more under {request_id.get()}", []
    else:
        text = str(error)
        _log.info("request %s refused: %s: %s", request_id.get(), code.name, type(error).__name__)
    if isinstance(error, errors.OverloadedError):
        trailer.append(("grpc-status-details-bin", _retry_details(code, text, error.retry_after_s)))  # type: ignore[arg-type]
    await context.abort(code, text, tuple(trailer))


def _retry_details(code: grpc.StatusCode, text: str, retry_after_s: float) -> bytes:
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(int(retry_after_s * 1e9))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status: bytes = status_pb2.Status(code=code.value[0], message=text, details=[detail]).SerializeToString()
    return status
