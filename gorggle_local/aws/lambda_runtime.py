"""Runs Lambda functions in subprocesses, with AWS's runtime interface client.

A process handles one invocation at a time and is reused. Not emulated: IAM, VPC networking, the size of /tmp, a read-only
code folder, CPU shares, freezing between invocations.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_API = "/2018-06-01/runtime"
# Importing runtime and handler. (Lambda allows 10 s; after that it counts as part of the invocation.)
MAX_INIT_S = 60.0
INIT_POLL_INTERVAL_S = 0.02
# The memory of a running function is measured this often.
POLL_INTERVAL_S = 0.1
MAX_LOG_LINES = 2000
# Maximum size of a response: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_RESPONSE_BYTES = 6_291_556
_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(':') + sys.path;"
    "from awslambdaric.__main__ import main; main(['bootstrap', sys.argv[1]])"
)
_PAGE_SIZE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Interpreter:
    """A CPython.

    Attributes:
        executable: the interpreter itself, not a shim.
        version: such as "3.12.1".
    """

    executable: Path
    version: str

    def __str__(self) -> str:
        return f"CPython {self.version} ({self.executable})"


def current_interpreter() -> Interpreter:
    """Return the current interpreter."""
    return Interpreter(Path(sys.executable), platform.python_version())


@dataclass(frozen=True)
class FunctionVersion:
    """A function's code and configuration.

    Attributes:
        handler: module and function.
        code: folder of the unzipped package.
        layers: folders of the unzipped layers.
        runtime: folder of the runtime's packages.
        variables: environment variables.
        timeout_s: of one invocation.
        memory_mb: limit.
    """

    name: str
    arn: str
    handler: str
    code: Path
    layers: tuple[Path, ...]
    runtime: Path
    variables: tuple[tuple[str, str], ...]
    timeout_s: float
    memory_mb: int


@dataclass(frozen=True)
class Outcome:
    """The payload of an invocation: its result, or the description of an error."""

    payload: str
    is_error: bool = False
    log: Sequence[str] = field(default_factory=list)


def error_outcome(kind: str, message: str, log: Sequence[str] = ()) -> Outcome:
    """Return an error in Lambda's format."""
    return Outcome(json.dumps({"errorType": kind, "errorMessage": message}), is_error=True, log=list(log))


class FunctionPool:
    """The processes of all functions: reuses idle ones, else starts new ones."""

    def __init__(self, endpoint_url: str, region: str, interpreter: Interpreter | None = None) -> None:
        """``interpreter``: Python for the functions; None: the current one."""
        self._interpreter = interpreter or current_interpreter()
        self._endpoint_url = endpoint_url
        self._region = region
        self._idle: dict[FunctionVersion, list[_Process]] = defaultdict(list)
        self._all: list[_Process] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def invoke(self, version: FunctionVersion, payload: str) -> Outcome:
        """Run an invocation with a payload in JSON."""
        if self._is_closed:
            return error_outcome("Sandbox.Closed", "the emulator is shutting down")
        process = self._acquire_process(version)
        outcome = process.invoke(payload)
        with self._lock:
            if process.is_alive and not self._is_closed:
                self._idle[version].append(process)
            else:
                self._all.remove(process)
                process.kill()
        return outcome

    def close(self) -> None:
        """Kill all processes."""
        with self._lock:
            self._is_closed = True
            self._idle.clear()
            # In parallel: each takes up to half a second.
            with ThreadPoolExecutor(max(1, len(self._all))) as pool:
                list(pool.map(_Process.kill, self._all))

    def _acquire_process(self, version: FunctionVersion) -> _Process:
        with self._lock:
            while self._idle[version]:
                process = self._idle[version].pop()
                if process.is_alive:
                    return process
                self._all.remove(process)
        process = _Process(version, self._interpreter, self._endpoint_url, self._region)
        with self._lock:
            self._all.append(process)
        return process


class _Process:
    """A process and its Runtime API server."""

    def __init__(
        self, version: FunctionVersion, interpreter: Interpreter, endpoint_url: str, region: str
    ) -> None:
        self._version, self._interpreter = version, interpreter
        self._invocations: queue.Queue[tuple[str, str, float]] = queue.Queue()
        # None: the process has closed its output, which it does when it ends.
        self._outcomes: queue.Queue[Outcome | None] = queue.Queue()
        self._is_ready = threading.Event()
        self._lines: deque[str] = deque(maxlen=MAX_LOG_LINES)
        self._tmp = tempfile.TemporaryDirectory(prefix="lambda-")
        self._api = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self._api.daemon_threads = True
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        path = ":".join(
            map(str, (version.code, *(layer / "python" for layer in version.layers), version.runtime))
        )
        self._process = subprocess.Popen(
            [str(interpreter.executable), "-I", "-S", "-c", _START, path, version.handler],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=version.code,
            env=self._build_environment(endpoint_url, region),
            start_new_session=True,
        )
        threading.Thread(target=self._collect_log, daemon=True).start()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._api.shutdown()
        self._api.server_close()
        self._tmp.cleanup()

    def invoke(self, payload: str) -> Outcome:
        self._lines.clear()
        timeout_s = self._version.timeout_s
        started = time.monotonic()
        while not self._is_ready.wait(INIT_POLL_INTERVAL_S):
            if not self.is_alive:
                return self._exit_outcome()
            if time.monotonic() - started > MAX_INIT_S:
                self._process.kill()
                return self._error_outcome(
                    "Sandbox.Timedout", f"initialization took more than {MAX_INIT_S:g} s"
                )
        started = time.monotonic()
        self._invocations.put((str(uuid.uuid4()), payload, time.time() + timeout_s))
        while True:
            remaining_s = started + timeout_s - time.monotonic()
            outcome = self._poll_outcome(min(POLL_INTERVAL_S, max(0.0, remaining_s)))
            # Checked first: a result that arrives too late does not count, however late this thread runs.
            if time.monotonic() - started > timeout_s:
                self._process.kill()
                return self._error_outcome(
                    "Sandbox.Timedout", f"Task timed out after {timeout_s:.2f} seconds"
                )
            if outcome is not None:
                return self._check_size(outcome)
            if not self.is_alive:
                return self._exit_outcome()
            if self._memory_mb() > self._version.memory_mb:
                self._process.kill()
                message = f"the function used more than {self._version.memory_mb} MB"
                return self._error_outcome("Runtime.OutOfMemory", message)

    def _poll_outcome(self, timeout_s: float) -> Outcome | None:
        try:
            return self._outcomes.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _check_size(self, outcome: Outcome) -> Outcome:
        if len(outcome.payload.encode()) > MAX_RESPONSE_BYTES:
            return self._error_outcome(
                "Function.ResponseSizeTooLarge",
                f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes).",
            )
        return Outcome(outcome.payload, outcome.is_error, list(self._lines))

    def _exit_outcome(self) -> Outcome:
        message = f"Runtime exited with status {self._process.wait()}"
        return self._poll_outcome(0) or self._error_outcome("Runtime.ExitError", message)

    def _error_outcome(self, kind: str, message: str) -> Outcome:
        return error_outcome(kind, message, self._lines)

    def _memory_mb(self) -> float:
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0.0
        return pages * _PAGE_SIZE_BYTES / 2**20

    def _collect_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.decode(errors="replace").rstrip())
        self._outcomes.put(None)

    def _build_environment(self, endpoint_url: str, region: str) -> dict[str, str]:
        version = self._version
        return {
            **dict(version.variables),
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_address[1]}",
            "AWS_LAMBDA_FUNCTION_NAME": version.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(version.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{version.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "LAMBDA_TASK_ROOT": str(version.code),
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{self._interpreter.version.rpartition('.')[0]}",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_ENDPOINT_URL": endpoint_url,
            # There is no X-Ray daemon.
            "POWERTOOLS_TRACE_DISABLED": "true",
            "AWS_XRAY_SDK_ENABLED": "false",
            "TMPDIR": self._tmp.name,
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            # Leave CPUs to the server.
            "OMP_NUM_THREADS": "1",
        }

    def next_invocation(self) -> tuple[str, str, float]:
        self._is_ready.set()
        return self._invocations.get()

    def put_outcome(self, payload: str, *, is_error: bool) -> None:
        self._outcomes.put(Outcome(payload, is_error))

    @property
    def arn(self) -> str:
        return self._version.arn


def _make_handler(process: _Process) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            request_id, payload, deadline = process.next_invocation()
            self._reply(
                200,
                payload,
                {
                    "Lambda-Runtime-Aws-Request-Id": request_id,
                    "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": process.arn,
                    "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000;Sampled=0",
                },
            )

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(length)
            if len(content) < length:
                # The process died while it sent its response.
                self.close_connection = True
                return
            body = content.decode()
            is_error = not self.path.endswith("/response")
            # Stored first: the process may exit as soon as it has the reply.
            process.put_outcome(_filter_error(body) if is_error else body, is_error=is_error)
            self._reply(202, "{}", {})

        def _reply(self, status: int, body: str, headers: Mapping[str, str]) -> None:
            content = body.encode()
            self.send_response(status)
            for name, value in {
                **headers,
                "Content-Length": str(len(content)),
                "Content-Type": "application/json",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Log nothing; functions have their own logs."""

    return Handler


def _filter_error(body: str) -> str:
    """Return only the fields of an error that Lambda passes to the caller."""
    document = json.loads(body)
    kept = {name: document[name] for name in ("errorMessage", "errorType", "stackTrace") if name in document}
    return json.dumps(kept)
