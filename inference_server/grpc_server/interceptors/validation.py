"""Refuses requests that cannot be parsed with INVALID_ARGUMENT.

Without it, grpc.aio ends such calls with UNKNOWN or INTERNAL and logs a traceback.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from gorggle_server.errors import InvalidRequestError
from gorggle_server.grpc_server.interceptors.base import Context, Handler, HandlerInterceptor

Deserializer = Callable[[bytes], Any]


class _Undecodable:
    """Replaces a request that could not be parsed."""


class RequestValidationInterceptor(HandlerInterceptor):
    """The innermost interceptor: raises InvalidRequestError for requests that cannot be parsed."""

    def _wrap_deserializer(self, deserialize: Deserializer) -> Deserializer:
        def parsed(data: bytes) -> Any:
            try:
                return deserialize(data)
            except (DecodeError, ValueError, RecursionError):
                return _Undecodable()

        return parsed

    def _wrap_unary(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        return _wrap_handler(handler, details.method)

    def _wrap_streaming(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        return _wrap_handler(handler, details.method)


def _wrap_handler(behaviour: Handler, method: str) -> Handler:
    """Return the handler with its requests checked: one, or an iterator of them."""

    def checked(request: Any) -> Any:
        if isinstance(request, _Undecodable):
            raise InvalidRequestError(
                f"a message is not a request of {method}: use the protocol buffers of the API, and send them completely"
            )
        return request

    async def each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield checked(request)

    def call(request: Any, context: Context) -> Any:
        return behaviour(each(request) if hasattr(request, "__aiter__") else checked(request), context)

    return call
