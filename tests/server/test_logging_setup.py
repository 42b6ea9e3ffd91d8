"""JSON log output."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from gorggle_server.logging_setup import JsonFormatter, request_id


def format_line(record: logging.LogRecord) -> dict[str, str]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def make_record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("gorggle", logging.WARNING, "file.py", 1, message, arguments, exc_info)


def test_a_record_is_one_json_line_with_its_request_id() -> None:
    token = request_id.set("abc123")
    try:
        entry = format_line(make_record("two\nlines of %s", "“text”"))
    finally:
        request_id.reset(token)
    assert entry["message"] == "two\nlines of “text”"
    assert (entry["level"], entry["logger"], entry["request_id"]) == ("WARNING", "gorggle", "abc123")
    assert entry["time"].endswith("+00:00")


def test_exceptions_include_a_traceback_and_unset_request_ids_are_omitted() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        entry = format_line(make_record("failed", error=error))
    assert "ValueError: broken" in entry["exception"]
    assert "request_id" not in entry


def test_the_server_logs_json_with_log_format_json() -> None:
    command = [sys.executable, "-m", "gorggle_server", "--log-format", "json", "--print-ready"]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--exit-on-stdin-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["listening"]
        _, stderr = server.communicate(timeout=30)
    entries = [json.loads(entry) for entry in stderr.splitlines()]
    assert any(address in entry["message"] for entry in entries)
    assert server.returncode == 0
