"""Records why a source, or one of its windows, failed, for the result."""

from __future__ import annotations

from typing import Any

from gorggle_lambdas.common import s3_objects
from gorggle_lambdas.common.errors import AwsUnavailableError
from gorggle_lambdas.common.failure_reasons import parse_failure
from gorggle_lambdas.common.observability import count, logger, task
from gorggle_lambdas.common.settings import ResultsSettings as Settings
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, parse_window

RAISES = (AwsUnavailableError,)
SOURCES = ("lips", "audio", "faces")


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Store the reason; for a window, with its times."""
    job, source = JobEvent.parse(event), event["source"]
    if source not in SOURCES:
        raise ValueError(f"the source is {source!r}: expected one of {', '.join(SOURCES)}")
    reason = parse_failure(event["error"])
    failure: dict[str, Any] = {"source": source, "reason": reason.text, "error": reason.error}
    name = f"failures/{source}.json"
    if "window" in event:
        window = parse_window(event)
        failure |= {"start": window.start_s, "end": window.end_s, "index": window.index}
        name = f"failures/{s3_objects.window_name(source, window.index)}"
    s3_objects.write_json(load_settings(Settings).results_bucket, job.work_key(name), failure)
    count(f"Failed{source.capitalize()}")
    logger.warning("a source failed", **failure)
    return {"source": source, "is_failed": True}
