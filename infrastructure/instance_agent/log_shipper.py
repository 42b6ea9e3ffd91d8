"""Ships the services' log lines from journald to CloudWatch Logs."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

UNITS = ("gorggle.service", "gorggle-agent.service")
# Limits of PutLogEvents: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
MAX_BATCH_BYTES, MAX_BATCH_EVENTS, EVENT_OVERHEAD_BYTES = 1_048_576, 10_000, 26
MAX_EVENT_BYTES = 100_000
# Events kept while CloudWatch is unreachable; the oldest are dropped.
MAX_PENDING_EVENTS = 50_000

Event = dict[str, Any]


class LogShipper:
    """Pending events, and the journal's cursor."""

    def __init__(self, client: Any, group: str, stream: str, cursor: Path) -> None:
        self._client, self._group, self._stream, self._cursor = client, group, stream, cursor
        self._pending: list[Event] = []
        self._has_stream = False

    def ship(self) -> int:
        """Send new lines and return their number."""
        self._pending = sorted(self._pending + read_journal(self._cursor), key=lambda each: each["timestamp"])
        del self._pending[:-MAX_PENDING_EVENTS]
        sent = 0
        while self._pending:
            if not self._has_stream:
                self._create_stream()
            batch = take_batch(self._pending)
            self._client.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=batch)
            del self._pending[: len(batch)]
            sent += len(batch)
        return sent

    def _create_stream(self) -> None:
        # It exists already if the agent was restarted.
        with contextlib.suppress(self._client.exceptions.ResourceAlreadyExistsException):
            self._client.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        self._has_stream = True


def read_journal(cursor: Path) -> list[Event]:
    """Return the journal's events since the last call."""
    units = [f"--unit={unit}" for unit in UNITS]
    command = ["journalctl", *units, "--output=json", "--no-pager", "--quiet", f"--cursor-file={cursor}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(parse_journal(result.stdout.splitlines()))


def parse_journal(lines: Iterable[str]) -> Iterable[Event]:
    """Convert journald's JSON lines to CloudWatch's events."""
    for line in lines:
        entry = json.loads(line)
        message = entry.get("MESSAGE") or ""
        if isinstance(message, list):  # not UTF-8
            message = bytes(message).decode(errors="replace")
        text = message.encode()[:MAX_EVENT_BYTES].decode(errors="ignore")
        if text:
            yield {"timestamp": int(entry["__REALTIME_TIMESTAMP"]) // 1000, "message": text}


def take_batch(events: Sequence[Event]) -> list[Event]:
    """Return the first events, as many as fit into one call."""
    size, batch = 0, []
    for event in events[:MAX_BATCH_EVENTS]:
        size += len(event["message"].encode()) + EVENT_OVERHEAD_BYTES
        if size > MAX_BATCH_BYTES:
            break
        batch.append(event)
    return batch
