"""Logging of the server: text lines or JSON lines. Logs never contain media, words or credentials."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
from datetime import UTC, datetime

# Id of the current call, for everything that runs for it on the event loop.
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
# Trace id of the current call, if calls are traced.
trace_id: contextvars.ContextVar[str] = contextvars.ContextVar("trace_id", default="")


class JsonFormatter(logging.Formatter):
    """Format each record as one JSON object: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message`` and context."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON; empty fields are left out."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            "trace_id": trace_id.get(),
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({key: value for key, value in entry.items() if value}, ensure_ascii=False)


def configure_logging(level: str, log_format: str) -> None:
    """Send records from a level on (such as "INFO") to standard error, as "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    # At DEBUG these log the data on the wire: AWS keys, secret values, clips.
    for name in ("boto3", "botocore", "s3transfer", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
