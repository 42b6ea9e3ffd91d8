"""Count and time every call, by method and status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
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
        began, method = time.monotonic(), details.method.rpartition("/")[2]
        with report_status(
            context, lambda code: self._metrics.observe_request(method, code.name, time.monotonic() - began)
        ):
            yield


@contextmanager
def report_status(context: Context, report: Callable[[grpc.StatusCode], None]) -> Iterator[None]:
    """Call ``report`` with the status that a call ends with inside the block."""
    code = grpc.StatusCode.OK
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        code = grpc.StatusCode.CANCELLED
        raise
    except aio.AbortError:
        number: Any = context.code()  # grpc.aio reports the number
        known = (code for code in grpc.StatusCode if number in (code, code.value[0]))
        code = next(known, grpc.StatusCode.UNKNOWN)
        raise
    finally:
        report(code)
