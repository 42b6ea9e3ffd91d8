"""Write timeout: ends streams whose client stops reading responses.

HTTP/2 lets a client leave responses unread forever while its keepalive is answered. Responses then fill the flow-control
window, the stream's thread blocks, and its slot is never released.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc

from gorggle_server.errors import IdleError
from gorggle_server.grpc_server.interceptors.base import Context, Handler, HandlerInterceptor


class WriteTimeoutInterceptor(HandlerInterceptor):
    """The innermost interceptor: writes each response of a stream within a timeout.

    Args:
        timeout_s: how long one response may wait for the client to read.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def _wrap_streaming(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        async def call(request: Any, context: Context) -> None:
            responses = handler(request, context)
            if asyncio.iscoroutine(responses):  # a handler that writes its responses itself (health's Watch)
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
                f"no response was read for {self._timeout_s:g} s: read responses while sending"
            ) from None
