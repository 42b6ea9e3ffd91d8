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
    LIVE,
    ORDER,
    PROC,
    decoder_that,
    live,
    needs_proc,
    piped,
    pool_of,
    status,
    the_child,
    up_to_first_frame,
)

# Reports through its error what came of trying something.
_TRY = """
try:
    {attempt}
except (OSError, RuntimeError, MemoryError) as error:
    raise InvalidMediaError("refused: " + type(error).__name__)
raise InvalidMediaError("it was possible")
"""


@pytest.fixture(scope="module")
def protection() -> SandboxFeatures:
    """Return the sandbox features available on this machine."""
    pool = DecoderPool(spares=0)
    with pool.acquire(ORDER) as process:
        held = process.features
    pool.close()
    return held


@contextlib.contextmanager
def looking_in() -> Iterator[None]:
    """Other processes cannot read a decoder's memory; root can."""
    try:
        yield
    except PermissionError:
        pytest.skip("a decoder is not to be looked into, and this user is not root")


def attempted(what: str) -> str:
    """Return the result of an attempt inside a sandboxed decoder."""
    attempt = what.strip().replace("\n", "\n    ")
    pool = pool_of(decoder_that(_TRY.format(attempt=attempt)))
    with pytest.raises(InvalidMediaError) as caught:
        list(decode_in_sandbox(pool, piped(b"media"), LIMITS))
    pool.close()
    return str(caught.value)


def test_allowed_attempts_are_distinguished_from_refused_ones() -> None:
    assert attempted("reader.read(5)") == "it was possible"
    assert attempted("raise OSError") == "refused: OSError"


def test_threads_may_be_started() -> None:
    assert (
        attempted(
            """
thread = threading.Thread(target=os.getpid)
thread.start()
thread.join()
"""
        )
        == "it was possible"
    )


CALLS = {
    "read a file": "open('/etc/hostname')",
    "read its server's environment": "open(f'/proc/{os.getppid()}/environ')",
    "write a file": "open('/tmp/gorggle-escaped', 'w')",
    "list a folder": "os.listdir('/')",
    "remove a file": "os.unlink('/tmp/gorggle-to-be-removed')",
    "start a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "fork": "os.fork()",
    "become another program": "os.execv('/bin/true', ['true'])",
    "signal its server": "os.kill(os.getppid(), 0)",
    "open a local socket": "socket.socket(socket.AF_UNIX)",
    "raise a limit": "__import__('resource').setrlimit(__import__('resource').RLIMIT_FSIZE, (9, 9))",
    "make memory that is a file": "os.memfd_create('x')",
}


@pytest.mark.parametrize("what", CALLS)
def test_a_decoder_cannot(what: str, protection: SandboxFeatures) -> None:
    if SandboxFeatures.SECCOMP not in protection:
        pytest.skip("this kernel or architecture has no filter of system calls")
    Path("/tmp/gorggle-to-be-removed").touch()
    assert attempted(CALLS[what]).startswith("refused")
    assert Path("/tmp/gorggle-to-be-removed").exists()
    assert not Path("/tmp/gorggle-escaped").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace's number is Linux's")
def test_a_decoder_cannot_trace_another_process(protection: SandboxFeatures) -> None:
    if SandboxFeatures.SECCOMP not in protection:
        pytest.skip("this kernel or architecture has no filter of system calls")
    number = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
    attempt = f"if ctypes.CDLL(None).syscall({number}, 16, os.getppid(), 0, 0) != 0: raise OSError"
    assert attempted(attempt) == "refused: OSError"


def test_a_decoder_cannot_reach_the_network(protection: SandboxFeatures) -> None:
    if not protection & (SandboxFeatures.NO_NETWORK | SandboxFeatures.SECCOMP):
        pytest.skip("this system can neither take the network away nor filter system calls")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert attempted(f"socket.create_connection({address!r}, 5)").startswith("refused")


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
@needs_proc
def test_a_decoder_has_a_network_of_its_own(protection: SandboxFeatures, pool: DecoderPool) -> None:
    if SandboxFeatures.NO_NETWORK not in protection:
        pytest.skip("this user may not make a network namespace")
    with pool.acquire(ORDER) as process:
        with looking_in():
            assert (PROC / str(process.pid) / "ns/net").readlink() != (PROC / "self/ns/net").readlink()
        interfaces = (PROC / str(process.pid) / "net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in interfaces] in ([], ["lo"])


def test_memory_is_limited() -> None:
    pool = pool_of(decoder_that(_TRY.format(attempt="bytearray(2**29)")), memory_bytes=2**29)
    with pytest.raises(InvalidMediaError, match="refused: MemoryError"):
        list(decode_in_sandbox(pool, piped(b"media"), LIMITS))
    pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@needs_proc
def test_limits_and_rights_of_a_decoder_at_work(pool: DecoderPool) -> None:
    items = decode_in_sandbox(pool, live(LIVE()), LIMITS)
    up_to_first_frame(items)
    pid = the_child(pool)
    rows = (PROC / str(pid) / "limits").read_text().splitlines()[1:]
    limits = {row[:26].strip(): row[26:].split()[:2] for row in rows}
    assert limits["Max address space"] == [str(pool.memory_bytes)] * 2
    assert limits["Max open files"] == [str(MAX_OPEN_FILES)] * 2
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == [str(LIMITS.max_spooled_bytes)] * 2
    assert limits["Max cpu time"][0] == str(60 + 10 * 4 * 3600)
    rights = status(pid)
    assert rights["NoNewPrivs"] == "1"
    assert rights["Seccomp"] == "2"
    assert (PROC / str(pid) / "oom_score_adj").read_text().strip() == "1000"
    items.close()


@needs_proc
def test_nothing_of_the_servers_environment_reaches_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of the operator's")
    monkeypatch.setenv("GORGGLE_TOKEN", "another")
    pool = DecoderPool(spares=0)
    with pool.acquire(ORDER) as process:
        with looking_in():
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
def test_a_decoder_holds_two_pipes_and_an_anonymous_file(pool: DecoderPool) -> None:
    with tempfile.TemporaryFile() as secret, socket.create_server(("127.0.0.1", 0)) as server:
        for fd in (secret.fileno(), server.fileno()):
            os.set_inheritable(fd, True)
        with pool.acquire(ORDER) as process, looking_in():
            held = sorted(str(fd.readlink()) for fd in (PROC / str(process.pid) / "fd").iterdir())
    assert [kind for kind in held if kind.startswith("pipe:")] == [held[-2], held[-1]]
    (spooled,) = [path for path in held if path.endswith("(deleted)")]
    assert sorted(held[:-2]) == sorted([os.devnull, os.devnull, spooled])


@needs_proc
def test_a_decoder_loads_nothing_of_the_engine_or_the_service(pool: DecoderPool) -> None:
    with pool.acquire(ORDER) as process, looking_in():
        maps = (PROC / str(process.pid) / "maps").read_text()
    assert "avcodec" in maps
    assert "dlib" in maps
    assert not any(library in maps for library in ("torch", "grpc", "protobuf", "boto", "pydantic"))
