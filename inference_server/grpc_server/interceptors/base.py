"""Base classes of the interceptors: one hook around every call, whatever its kind."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import grpc
from grpc import aio

Context = aio.ServicerContext[Any, Any]
Handler = Callable[..., Any]


class HandlerInterceptor(aio.ServerInterceptor):
    """Wraps the handler and the request deserializer of each call; by default they stay as they are."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call."""
        rpc: Any = await continuation(handler_call_details)
        if rpc is None:
            return None
        if rpc.response_streaming:
            handler = self._wrap_streaming(rpc.stream_stream or rpc.unary_stream, handler_call_details)
            if rpc.request_streaming:
                create_handler = grpc.stream_stream_rpc_method_handler
            else:
                create_handler = grpc.unary_stream_rpc_method_handler
        else:
            handler = self._wrap_unary(rpc.stream_unary or rpc.unary_unary, handler_call_details)
            if rpc.request_streaming:
                create_handler = grpc.stream_unary_rpc_method_handler
            else:
                create_handler = grpc.unary_unary_rpc_method_handler
        return create_handler(
            handler, self._wrap_deserializer(rpc.request_deserializer), rpc.response_serializer
        )

    def _wrap_deserializer(self, deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        return deserialize

    def _wrap_unary(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        return handler

    def _wrap_streaming(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        return handler


class CallInterceptor(HandlerInterceptor, ABC):
    """Runs each call inside ``wrap_call``."""

    @abstractmethod
    def wrap_call(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> AbstractAsyncContextManager[None]:
        """Return the context of a call: entered before its handler, left with the call's exception, if any."""

    def _wrap_unary(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        async def call(request: Any, context: Context) -> Any:
            async with self.wrap_call(details, context):
                response = handler(request, context)
                return await response if asyncio.iscoroutine(response) else response

        return call

    def _wrap_streaming(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self.wrap_call(details, context):
                responses = handler(request, context)
                if asyncio.iscoroutine(
                    responses
                ):  # a handler that writes its responses itself (health's Watch)
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        yield response

        return call
