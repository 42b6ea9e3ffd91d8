"""The sandbox of a decoder process, tested from inside and outside."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gorggle_server.errors import InvalidMediaError
from gorggle_server.sandbox.decoding import decode_in_sandbox
from gorggle_server.sandbox.hardening import MAX_OPEN_FILES, SandboxFeatures
from gorggle_server.sandbox.pool import DecoderPool
from tests.media.samples import LIMITS
from tests.sandbox.helpers import (
    JOB,
    PROC,
    decoder_command,
    get_decoder_pid,
    make_pipe,
    make_pool,
    needs_proc,
    noisy_clip,
    partial_pipe,
    read_status,
    read_until_first_frame,
)

# Reports the outcome of an attempt in an error message.
_ATTEMPT = """
try:
    {attempt}
except (OSError, RuntimeError, MemoryError) as error:
    raise InvalidMediaError("refused: " + type(error).__name__)
raise InvalidMediaError("it was possible")
"""


@pytest.fixture(scope="module")
def sandbox_features() -> SandboxFeatures:
    """Return the sandbox features available on this machine."""
    pool = DecoderPool(spares=0)
    with pool.acquire(JOB) as process:
        features = process.features
    pool.close()
    return features


@contextlib.contextmanager
def skip_without_access() -> Iterator[None]:
    """Skip the test if /proc of the decoder is not readable; only root can read it."""
    try:
        yield
    except PermissionError:
        pytest.skip("only root can inspect a decoder process")


def run_in_decoder(code: str) -> str:
    """Return the result of an attempt inside a sandboxed decoder."""
    attempt = code.strip().replace("\n", "\n    ")
    pool = make_pool(decoder_command(_ATTEMPT.format(attempt=attempt)))
    with pytest.raises(InvalidMediaError) as caught:
        list(decode_in_sandbox(pool, make_pipe(b"media"), LIMITS))
    pool.close()
    return str(caught.value)


def test_allowed_and_refused_operations_are_distinguished() -> None:
    assert run_in_decoder("reader.read(5)") == "it was possible"
    assert run_in_decoder("raise OSError") == "refused: OSError"


def test_a_decoder_can_start_threads() -> None:
    assert (
        run_in_decoder(
            """
thread = threading.Thread(target=os.getpid)
thread.start()
thread.join()
"""
        )
        == "it was possible"
    )


FORBIDDEN_OPERATIONS = {
    "read a file": "open('/etc/hostname')",
    "read its server's environment": "open(f'/proc/{os.getppid()}/environ')",
    "write a file": "open('/tmp/gorggle-escaped', 'w')",
    "list a directory": "os.listdir('/')",
    "remove a file": "os.unlink('/tmp/gorggle-to-be-removed')",
    "start a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "fork": "os.fork()",
    "execute another program": "os.execv('/bin/true', ['true'])",
    "signal its server": "os.kill(os.getppid(), 0)",
    "open a local socket": "socket.socket(socket.AF_UNIX)",
    "raise a limit": "__import__('resource').setrlimit(__import__('resource').RLIMIT_FSIZE, (9, 9))",
    "create an in-memory file": "os.memfd_create('x')",
}


@pytest.mark.parametrize("operation", FORBIDDEN_OPERATIONS)
def test_a_forbidden_operation_is_refused(operation: str, sandbox_features: SandboxFeatures) -> None:
    if SandboxFeatures.SECCOMP not in sandbox_features:
        pytest.skip("requires seccomp")
    Path("/tmp/gorggle-to-be-removed").touch()
    assert run_in_decoder(FORBIDDEN_OPERATIONS[operation]).startswith("refused")
    assert Path("/tmp/gorggle-to-be-removed").exists()
    assert not Path("/tmp/gorggle-escaped").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="requires Linux system call numbers")
def test_a_decoder_cannot_trace_another_process(sandbox_features: SandboxFeatures) -> None:
    if SandboxFeatures.SECCOMP not in sandbox_features:
        pytest.skip("requires seccomp")
    number = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
    attempt = f"if ctypes.CDLL(None).syscall({number}, 16, os.getppid(), 0, 0) != 0: raise OSError"
    assert run_in_decoder(attempt) == "refused: OSError"


def test_a_decoder_cannot_reach_the_network(sandbox_features: SandboxFeatures) -> None:
    if not sandbox_features & (SandboxFeatures.NO_NETWORK | SandboxFeatures.SECCOMP):
        pytest.skip("requires network namespaces or seccomp")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert run_in_decoder(f"socket.create_connection({address!r}, 5)").startswith("refused")


@pytest.mark.skipif(sys.platform != "linux", reason="requires Linux namespaces")
@needs_proc
def test_a_decoder_runs_in_a_separate_network_namespace(
    sandbox_features: SandboxFeatures, pool: DecoderPool
) -> None:
    if SandboxFeatures.NO_NETWORK not in sandbox_features:
        pytest.skip("requires permission to create a network namespace")
    with pool.acquire(JOB) as process:
        with skip_without_access():
            assert (PROC / str(process.pid) / "ns/net").readlink() != (PROC / "self/ns/net").readlink()
        interfaces = (PROC / str(process.pid) / "net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in interfaces] in ([], ["lo"])


def test_memory_is_limited() -> None:
    pool = make_pool(decoder_command(_ATTEMPT.format(attempt="bytearray(2**29)")), memory_bytes=2**29)
    with pytest.raises(InvalidMediaError, match="refused: MemoryError"):
        list(decode_in_sandbox(pool, make_pipe(b"media"), LIMITS))
    pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="requires Linux /proc")
@needs_proc
def test_a_running_decoder_has_resource_limits_and_no_privileges(pool: DecoderPool) -> None:
    items = decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS)
    read_until_first_frame(items)
    pid = get_decoder_pid(pool)
    rows = (PROC / str(pid) / "limits").read_text().splitlines()[1:]
    limits = {row[:26].strip(): row[26:].split()[:2] for row in rows}
    assert limits["Max address space"] == [str(pool.memory_bytes)] * 2
    assert limits["Max open files"] == [str(MAX_OPEN_FILES)] * 2
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == [str(LIMITS.max_spooled_bytes)] * 2
    assert limits["Max cpu time"][0] == str(60 + 10 * 4 * 3600)
    fields = read_status(pid)
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert (PROC / str(pid) / "oom_score_adj").read_text().strip() == "1000"
    items.close()


@needs_proc
def test_a_decoder_does_not_inherit_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of the operator's")
    monkeypatch.setenv("GORGGLE_TOKEN", "another")
    pool = DecoderPool(spares=0)
    with pool.acquire(JOB) as process:
        with skip_without_access():
            environment = (PROC / str(process.pid) / "environ").read_bytes()
        command = (PROC / str(process.pid) / "cmdline").read_bytes()
    pool.close()
    assert b"secret" not in environment + command
    names = {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0") if entry}
    assert names <= {
        *("PYTHONPATH", "PYTHONUTF8", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "MALLOC_ARENA_MAX"),
    }


@needs_proc
def test_a_decoder_has_no_inherited_file_descriptors(pool: DecoderPool) -> None:
    with tempfile.TemporaryFile() as secret, socket.create_server(("127.0.0.1", 0)) as server:
        for fd in (secret.fileno(), server.fileno()):
            os.set_inheritable(fd, True)
        with pool.acquire(JOB) as process, skip_without_access():
            fd_targets = sorted(str(fd.readlink()) for fd in (PROC / str(process.pid) / "fd").iterdir())
    assert [target for target in fd_targets if target.startswith("pipe:")] == [fd_targets[-2], fd_targets[-1]]
    (spooled,) = [path for path in fd_targets if path.endswith("(deleted)")]
    assert sorted(fd_targets[:-2]) == sorted([os.devnull, os.devnull, spooled])


@needs_proc
def test_a_decoder_does_not_load_inference_or_service_libraries(pool: DecoderPool) -> None:
    with pool.acquire(JOB) as process, skip_without_access():
        maps = (PROC / str(process.pid) / "maps").read_text()
    assert "avcodec" in maps
    assert "dlib" in maps
    assert not any(library in maps for library in ("torch", "grpc", "protobuf", "boto", "pydantic"))
