"""Count and time every call, by method and status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from gorggle_server.grpc_server.interceptors.base import CallInterceptor, Context
from gorggle_server.observability.metrics import ServerMetrics


class CallMetricsInterceptor(CallInterceptor):
    """The outermost interceptor: it sees the final status."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics

    @asynccontextmanager
    async def wrap_call(self, details: grpc.HandlerCallDetails, context: Context) -> AsyncIterator[None]:
        """Measure the call. Only registered methods reach interceptors, so unknown method names create no metric series."""
        began, code = time.monotonic(), grpc.StatusCode.OK
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except aio.AbortError:
            code = get_call_status(context)
            raise
        finally:
            method = details.method.rpartition("/")[2]
            self._metrics.observe_request(method, code.name, time.monotonic() - began)


def get_call_status(context: Context) -> grpc.StatusCode:
    """Return the status that a call ended with; grpc.aio reports its number."""
    number: Any = context.code()
    return next(
        (code for code in grpc.StatusCode if number in (code, code.value[0])), grpc.StatusCode.UNKNOWN
    )
