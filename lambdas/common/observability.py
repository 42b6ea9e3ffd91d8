"""Logging, tracing and metrics of all functions, and mapping of transient AWS errors."""

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
    """Add to a metric of this invocation; metrics are written when the handler ends."""
    metrics.add_metric(name=name, unit=unit, value=value)


def task(handler: Handler) -> Handler:
    """Wrap a handler as a task of the state machine, with logging and named errors.

    Transient AWS failures become ``AwsUnavailableError``; all other errors pass through.
    """

    @functools.wraps(handler)
    def run(event: dict[str, Any], context: Any) -> Any:
        job = event.get("job")
        if isinstance(job, dict):
            logger.append_keys(job_id=job.get("job_id"), attempt=job.get("attempt"))
        try:
            return handler(event, context)
        except Exception as error:
            transient = aws_clients.as_transient_error(error)
            if transient is not None:
                raise transient from error
            raise

    return instrument(run)


def instrument(handler: Handler) -> Handler:
    """Add logging, tracing and metrics to a handler."""

    @functools.wraps(handler)
    def run(event: dict[str, Any], context: Any) -> Any:
        try:
            return handler(event, context)
        except Exception as error:
            count("FunctionErrors")
            metrics.add_metadata(key="error", value=type(error).__name__)
            logger.exception("the function failed")
            raise
        finally:
            # Powertools warns if there are no metrics to write.
            if metrics.metric_set:
                metrics.flush_metrics()

    traced = tracer.capture_lambda_handler(run, capture_response=False)
    logged: Handler = logger.inject_lambda_context(traced, clear_state=True)
    return logged
