"""Runs a temporary inference server as a subprocess, for programs without a server address."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import util
from typing import IO, Self

from gorggle.errors import ConfigurationError, UnavailableError

MODULE = "gorggle_server"
NOT_INSTALLED = "the server is not installed: pip install 'gorggle[server]'"
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0
MAX_LOG_LINES = 40
# Settings of a public server that a temporary one must not inherit; models and device apply to both.
IGNORED_ENV_VARS = frozenset(
    {"GORGGLE_TLS_CERTIFICATE", "GORGGLE_TLS_KEY", "GORGGLE_TLS_CLIENT_CA", "GORGGLE_TOKEN"}
)


class LocalServer:
    """A server subprocess on a free loopback port; ``address`` is its HOST:PORT inside the ``with`` statement.

    It exits when its standard input closes, so it also exits if this process is killed. Its log is only used in error
    messages.

    Args:
        model: name of the model to serve in addition to the server's own, and its default.
        audio_model: name of the server's second model; see the setting ``audio_model``.

    Raises:
        ConfigurationError: the server is not installed.
        UnavailableError: it exited, or was not ready in time.
    """

    def __init__(self, model: str | None = None, audio_model: str | None = None) -> None:
        self.address = ""
        self._command = _build_command(model, audio_model)
        self._log: collections.deque[str] = collections.deque(maxlen=MAX_LOG_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        # A new session keeps Ctrl-C from stopping the server before this process has closed its calls.
        self._process = process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in IGNORED_ENV_VARS},
        )
        try:
            self.address = self._wait_for_address(process)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server by closing its standard input; kill it after a timeout."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None or process.stderr is None:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for reader in self._readers:
            reader.join(STOP_TIMEOUT_S)
        process.stdout.close()
        process.stderr.close()
        self._process = None

    def _wait_for_address(self, process: subprocess.Popen[bytes]) -> str:
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._start_reader(process.stdout, lines.put)
        self._start_reader(process.stderr, self._append_log)
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                line = lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise UnavailableError(
                    f"the server did not start within {START_TIMEOUT_S:g} s{self._log_tail()}"
                ) from None
            if line is None:
                raise self._build_startup_error(process)
            address = _parse_address(line)
            if address is not None:
                return address

    def _start_reader(self, stream: IO[bytes] | None, handle_line: Callable[[bytes | None], None]) -> None:
        """Read a pipe to its end in a thread, so that the server never blocks on it.

        ``handle_line`` is called with each line, and with None at the end.
        """

        def read() -> None:
            for line in stream or ():
                handle_line(line)
            handle_line(None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        self._readers.append(reader)

    def _append_log(self, line: bytes | None) -> None:
        if line is not None:
            self._log.append(line.decode(errors="replace").rstrip())

    def _build_startup_error(self, process: subprocess.Popen[bytes]) -> Exception:
        code = process.wait()
        self._readers[1].join(STOP_TIMEOUT_S)
        if any(re.match(r"ModuleNotFoundError: ", line) for line in self._log):
            return ConfigurationError(f"{NOT_INSTALLED}, or use --server")
        return UnavailableError(f"the server exited with code {code} before it was ready{self._log_tail()}")

    def _log_tail(self) -> str:
        lines = [line for line in self._log if line.strip()]
        return f": {lines[-1].strip()}" if lines else ""


def _build_command(model: str | None, audio_model: str | None) -> list[str]:
    if util.find_spec(MODULE) is None:
        raise ConfigurationError(f"{NOT_INSTALLED}, or use --server")
    # -P keeps a folder of the module's name in the current directory from being run instead.
    arguments = ["--listen", "127.0.0.1:0", "--print-ready", "--exit-on-stdin-eof"]
    if model:
        arguments += ["--default-model", model]
    if audio_model:
        arguments += ["--audio-model", audio_model]
    return [sys.executable, "-P", "-m", MODULE, *arguments]


def _parse_address(line: bytes) -> str | None:
    """Return the address in ``{"listening": "127.0.0.1:PORT"}``; None for any other line."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(line)["listening"])
    return None
