"""Requests that are no message of the API: the caller's mistake, told as one.

Left to itself, grpc.aio ends such calls with UNKNOWN or INTERNAL, and a traceback in the log, before any handler sees them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from gorggle_server.errors import InvalidRequestError
from gorggle_server.grpc_server.interceptors.base import Context, HandlerInterceptor

Deserializer = Callable[[bytes], Any]


class _Undecodable:
    """Stands in for a request that could not be parsed."""


class RequestValidationInterceptor(HandlerInterceptor):
    """The innermost interceptor: what its handlers get was parsed."""

    def _wrap_deserializer(self, deserialize: Deserializer) -> Deserializer:
        def parsed(data: bytes) -> Any:
            try:
                return deserialize(data)
            except (DecodeError, ValueError, RecursionError):
                return _Undecodable()

        return parsed

    def _wrap_unary(
        self, handler: Callable[..., Any], details: grpc.HandlerCallDetails
    ) -> Callable[..., Any]:
        return super()._wrap_unary(_wrap_handler(handler, details.method), details)

    def _wrap_streaming(
        self, handler: Callable[..., Any], details: grpc.HandlerCallDetails
    ) -> Callable[..., Any]:
        return super()._wrap_streaming(_wrap_handler(handler, details.method), details)


def _wrap_handler(behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
    """The behaviour, given checked requests: one, or an iterator of them."""

    def checked(request: Any) -> Any:
        if isinstance(request, _Undecodable):
            raise InvalidRequestError(
                f"a message is no request of {method}: use the API's own protocol buffers, and send them whole"
            )
        return request

    async def each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield checked(request)

    def call(request: Any, context: Context) -> Any:
        return behaviour(each(request) if hasattr(request, "__aiter__") else checked(request), context)

    return call
