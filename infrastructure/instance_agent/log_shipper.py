"""Carries the services' log lines from the instance's journal to CloudWatch."""

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
# Kept while CloudWatch cannot be reached; older ones go first.
MAX_PENDING_EVENTS = 50_000

Event = dict[str, Any]


class LogShipper:
    """Lines that have not been sent yet, and where the next ones begin."""

    def __init__(self, client: Any, group: str, stream: str, cursor: Path) -> None:
        self._client, self._group, self._stream, self._cursor = client, group, stream, cursor
        self._pending: list[Event] = []
        self._has_stream = False

    def ship(self) -> int:
        """Send what is new; the number of lines that were sent."""
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
        # It is there already where the instance's attendant was started anew.
        with contextlib.suppress(self._client.exceptions.ResourceAlreadyExistsException):
            self._client.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        self._has_stream = True


def read_journal(cursor: Path) -> list[Event]:
    """The journal's lines since the last call."""
    units = [f"--unit={unit}" for unit in UNITS]
    command = ["journalctl", *units, "--output=json", "--no-pager", "--quiet", f"--cursor-file={cursor}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(parse_journal(done.stdout.splitlines()))


def parse_journal(lines: Iterable[str]) -> Iterable[Event]:
    """Lines of journald's JSON as CloudWatch's events."""
    for line in lines:
        entry = json.loads(line)
        message = entry.get("MESSAGE") or ""
        if isinstance(message, list):  # what is no text comes as bytes
            message = bytes(message).decode(errors="replace")
        text = message.encode()[:MAX_EVENT_BYTES].decode(errors="ignore")
        if text:
            yield {"timestamp": int(entry["__REALTIME_TIMESTAMP"]) // 1000, "message": text}


def take_batch(events: Sequence[Event]) -> list[Event]:
    """As many of the first events as one call takes."""
    size, batch = 0, []
    for event in events[:MAX_BATCH_EVENTS]:
        size += len(event["message"].encode()) + EVENT_OVERHEAD_BYTES
        if size > MAX_BATCH_BYTES:
            break
        batch.append(event)
    return batch
