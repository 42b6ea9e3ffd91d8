"""What all our interceptors share: one place around every call, whatever its kind."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
from grpc import aio

Context = aio.ServicerContext[Any, Any]


class CallInterceptor(aio.ServerInterceptor, ABC):
    """Runs each call inside ``around``."""

    @abstractmethod
    def wrap_call(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> AbstractAsyncContextManager[None]:
        """What a call runs in: entered before its handler, left when it has ended, with what it raised."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        if handler.response_streaming:
            behaviour = self._wrap_streaming(
                handler.stream_stream or handler.unary_stream, handler_call_details
            )
            if handler.request_streaming:
                make = grpc.stream_stream_rpc_method_handler
            else:
                make = grpc.unary_stream_rpc_method_handler
        else:
            behaviour = self._wrap_unary(handler.stream_unary or handler.unary_unary, handler_call_details)
            if handler.request_streaming:
                make = grpc.stream_unary_rpc_method_handler
            else:
                make = grpc.unary_unary_rpc_method_handler
        return make(
            behaviour, self._wrap_deserializer(handler.request_deserializer), handler.response_serializer
        )

    def _wrap_deserializer(self, deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """How requests are parsed."""
        return deserialize

    def _wrap_unary(
        self, handler: Callable[..., Any], details: grpc.HandlerCallDetails
    ) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> Any:
            async with self.wrap_call(details, context):
                answer = handler(request, context)
                return await answer if asyncio.iscoroutine(answer) else answer

        return call

    def _wrap_streaming(
        self, handler: Callable[..., Any], details: grpc.HandlerCallDetails
    ) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self.wrap_call(details, context):
                responses = handler(request, context)
                if asyncio.iscoroutine(responses):  # a handler that writes by itself (health's Watch)
                    await responses
                    return
                try:
                    async for response in responses:
                        yield response
                finally:
                    await responses.aclose()

        return call
