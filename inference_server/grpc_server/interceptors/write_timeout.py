"""Clients that do not read what is sent to them: they may hold a place for so long and no longer.

HTTP/2 lets a client leave a stream unread for ever, and its keepalive is answered all the while. What is sent then fills
the flow-control window, the stream's thread waits for room, and nobody else gets its place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from gorggle_server.errors import IdleError
from gorggle_server.grpc_server.interceptors.base import CallInterceptor, Context


class WriteTimeoutInterceptor(CallInterceptor):
    """The innermost interceptor: writes each response of a stream by itself, within the limit.

    Args:
        timeout_s: how long one response may wait for the client to make room.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def wrap_call(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Nothing more is done around a call."""
        return contextlib.nullcontext()

    def _wrap_streaming(
        self, handler: Callable[..., Any], details: grpc.HandlerCallDetails
    ) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> None:
            responses = handler(request, context)
            if asyncio.iscoroutine(responses):  # a handler that writes by itself (health's Watch)
                await responses
                return
            async with contextlib.aclosing(responses):
                async for response in responses:
                    await self._write(context, response)

        return call

    async def _write(self, context: Context, response: Any) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await context.write(response)
        except TimeoutError:
            raise IdleError(
                f"nothing of what was sent was read for {self._timeout_s:g} s: read the responses while you send"
            ) from None
