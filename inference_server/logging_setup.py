"""The server's log: lines for people, or one JSON object a line for machines. Never media, words or credentials."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
from datetime import UTC, datetime

# The call that is being answered, in everything that runs for it on the event loop.
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
# Its trace's, where calls are traced.
trace_id: contextvars.ContextVar[str] = contextvars.ContextVar("trace_id", default="")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message`` and, where known, more."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
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
    """Send everything from a level on ("INFO") to standard error, as "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    # At DEBUG these log what goes over the wire: keys of AWS, secrets' values, clips.
    for name in ("boto3", "botocore", "s3transfer", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
