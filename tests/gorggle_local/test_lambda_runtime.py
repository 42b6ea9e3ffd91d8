"""Functions whose process dies at the worst moment, under the emulated Runtime API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gorggle_local.aws.lambda_runtime import FunctionPool, FunctionVersion

# Speaks the Runtime API itself, in place of AWS's client: promises an answer of so many bytes, sends fewer, and dies.
CLIENT = """
import os, socket

def main(_arguments):
    host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
    asking = socket.create_connection((host, int(port)))
    asking.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    asking.recv(65536)
    answer = os.environ["ANSWER"].encode()
    telling = socket.create_connection((host, int(port)))
    head = f"POST /2018-06-01/runtime/invocation/1/response HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {os.environ['LENGTH']}\\r\\n\\r\\n"
    telling.sendall(head.encode() + answer)
    if len(answer) == int(os.environ["LENGTH"]):
        telling.recv(65536)
    os._exit(3)
"""


@pytest.fixture
def functions() -> Iterator[FunctionPool]:
    running = FunctionPool("http://127.0.0.1:9", "us-east-1")
    yield running
    running.close()


def version(folder: Path, answer: str, length: int) -> FunctionVersion:
    (folder / "awslambdaric").mkdir()
    (folder / "awslambdaric" / "__init__.py").touch()
    (folder / "awslambdaric" / "__main__.py").write_text(CLIENT)
    variables = (("ANSWER", answer), ("LENGTH", str(length)))
    return FunctionVersion("f", "arn", "h.handler", folder, (), folder, variables, 30.0, 512)


@pytest.mark.parametrize("answer", ["", '{"is_ready'])
def test_a_truncated_response_of_a_dying_process_is_an_error(
    functions: FunctionPool, tmp_path: Path, answer: str
) -> None:
    outcome = functions.invoke(version(tmp_path, answer, 20), "{}")
    assert outcome.is_error
    assert json.loads(outcome.payload)["errorType"] == "Runtime.ExitError"


def test_a_complete_response_counts_although_the_process_dies(
    functions: FunctionPool, tmp_path: Path
) -> None:
    outcome = functions.invoke(version(tmp_path, '{"ok": true}', 12), "{}")
    assert (outcome.is_error, outcome.payload) == (False, '{"ok": true}')
