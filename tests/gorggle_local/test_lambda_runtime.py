"""Tests of the emulated Lambda Runtime API with function processes that exit while they send a response."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gorggle_local.aws import lambda_runtime
from gorggle_local.aws.lambda_runtime import FunctionPool, FunctionVersion

# Replaces AWS's runtime client: announces LENGTH bytes of response, sends RESPONSE, which may be shorter, and exits.
CLIENT = """
import os, socket

def main(_arguments):
    host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
    next_invocation = socket.create_connection((host, int(port)))
    next_invocation.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    next_invocation.recv(65536)
    response = os.environ["RESPONSE"].encode()
    response_socket = socket.create_connection((host, int(port)))
    head = f"POST /2018-06-01/runtime/invocation/1/response HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {os.environ['LENGTH']}\\r\\n\\r\\n"
    response_socket.sendall(head.encode() + response)
    if len(response) == int(os.environ["LENGTH"]):
        response_socket.recv(65536)
    os._exit(3)
"""


@pytest.fixture
def functions() -> Iterator[FunctionPool]:
    pool = FunctionPool("http://127.0.0.1:9", "us-east-1")
    yield pool
    pool.close()


def create_version(folder: Path, response: str, length: int) -> FunctionVersion:
    (folder / "awslambdaric").mkdir()
    (folder / "awslambdaric" / "__init__.py").touch()
    (folder / "awslambdaric" / "__main__.py").write_text(CLIENT)
    variables = (("RESPONSE", response), ("LENGTH", str(length)))
    return FunctionVersion("f", "arn", "h.handler", folder, (), folder, variables, 30.0, 512)


@pytest.mark.parametrize("response", ["", '{"is_ready'])
def test_a_truncated_response_of_an_exiting_process_is_an_error(
    functions: FunctionPool, tmp_path: Path, response: str
) -> None:
    outcome = functions.invoke(create_version(tmp_path, response, 20), "{}")
    assert outcome.is_error
    assert json.loads(outcome.payload)["errorType"] == "Runtime.ExitError"


def test_a_complete_response_of_an_exiting_process_is_used(
    functions: FunctionPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process exits when its response is acknowledged, even if the emulator needs long to store it."""
    put_outcome = lambda_runtime._Process.put_outcome

    def put_outcome_late(*arguments: Any, **options: Any) -> None:
        time.sleep(0.5)
        put_outcome(*arguments, **options)

    monkeypatch.setattr(lambda_runtime._Process, "put_outcome", put_outcome_late)
    outcome = functions.invoke(create_version(tmp_path, '{"ok": true}', 12), "{}")
    assert (outcome.is_error, outcome.payload) == (False, '{"ok": true}')
