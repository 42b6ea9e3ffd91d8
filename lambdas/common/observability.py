"""Logging, tracing and metrics, the same for every function; and the border where its errors get their names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

from gorggle_lambdas.common import aws_clients

logger = Logger(utc=True)
tracer = Tracer()
metrics = Metrics()

Handler = Callable[[dict[str, Any], Any], Any]


def count(name: str, value: float = 1, unit: MetricUnit = MetricUnit.Count) -> None:
    """Add to a metric of this invocation; it is written when the handler ends."""
    metrics.add_metric(name=name, unit=unit, value=value)


def task(handler: Handler) -> Handler:
    """Make a handler a task of the state machine: observed, and with errors that it knows by name.

    A failure of AWS that passes by itself becomes ``AwsUnavailableError``; every other error goes through as it is.
    """

    @functools.wraps(handler)
    def named(event: dict[str, Any], context: Any) -> Any:
        job = event.get("job")
        if isinstance(job, dict):
            logger.append_keys(job_id=job.get("job_id"), attempt=job.get("attempt"))
        try:
            return handler(event, context)
        except Exception as error:
            temporary = aws_clients.as_transient_error(error)
            if temporary is not None:
                raise temporary from error
            raise

    return instrument(named)


def instrument(handler: Handler) -> Handler:
    """Log, trace and measure a handler."""

    @functools.wraps(handler)
    def flushed(event: dict[str, Any], context: Any) -> Any:
        try:
            return handler(event, context)
        except Exception as error:
            count("FunctionErrors")
            metrics.add_metadata(key="error", value=type(error).__name__)
            logger.exception("the function failed")
            raise
        finally:
            # Powertools warns about, and writes, nothing where no metric was added.
            if metrics.metric_set:
                metrics.flush_metrics()

    traced = tracer.capture_lambda_handler(flushed, capture_response=False)
    logged: Handler = logger.inject_lambda_context(traced, clear_state=True)
    return logged
