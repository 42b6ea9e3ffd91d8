"""Fork server: fast start of sandboxed decoders, and failure handling."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gorggle_server.errors import InvalidMediaError, NotFoundError, NotReadyError
from gorggle_server.media.resampling import EndOfStream
from gorggle_server.sandbox import fork_client
from gorggle_server.sandbox import pool as pools
from gorggle_server.sandbox.decoder_process import build_environment
from gorggle_server.sandbox.decoding import check_decoding, decode_in_sandbox
from gorggle_server.sandbox.fork_client import FORKED, ForkServer, ForkServerExitedError, can_fork
from gorggle_server.sandbox.pool import FORK_SERVER, DecoderPool
from gorggle_server.sandbox.protocol import DecoderError
from gorggle_server.vision.landmark_model import LandmarkModel, LandmarkModelName, find_dlib_model
from tests.media.samples import LIMITS, clip
from tests.sandbox.helpers import (
    JOB,
    get_decoder_pid,
    is_alive,
    list_descendants,
    make_pipe,
    needs_proc,
    noisy_clip,
    partial_pipe,
    read_status,
    read_until_first_frame,
    wait_until,
)

pytestmark = pytest.mark.skipif(not can_fork(), reason="requires pidfds")


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    """A running fork server, shared by tests that do not modify it."""
    server = ForkServer(FORK_SERVER, build_environment())
    server.fork().kill()
    yield server
    server.close()


def get_fork_server_pid(running: DecoderPool) -> int:
    assert running._fork_server is not None
    return running._fork_server.pid


def decodes_completely(running: DecoderPool) -> bool:
    """Return whether a stream is decoded to its end."""
    (*_, end) = decode_in_sandbox(running, make_pipe(clip()), LIMITS)
    return isinstance(end, EndOfStream) and end.frames == 50


def test_a_decoder_is_forked_quickly(fork_server: ForkServer) -> None:
    took_s = []
    for _ in range(5):
        start_s = time.monotonic()
        child = fork_server.fork()
        took_s.append(time.monotonic() - start_s)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        child.close()
    assert min(took_s) < 0.1  # starting a new interpreter takes ten times as long


@needs_proc
@pytest.mark.parametrize("landmark_model", LandmarkModelName)
def test_decoders_share_the_memory_of_the_landmark_model(landmark_model: LandmarkModelName) -> None:
    with contextlib.closing(DecoderPool(landmark_model=LandmarkModel(landmark_model))) as pool:
        check_shared_memory(pool)


def check_shared_memory(pool: DecoderPool) -> None:
    assert decodes_completely(pool)
    with pool.acquire(JOB) as process:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup")
        try:
            rows = dict(line.split(":", 1) for line in rollup.read_text().splitlines()[1:])
        except PermissionError:
            pytest.skip("only root can inspect a decoder process")
    kib = {name: int(value.split()[0]) for name, value in rows.items() if value.strip().endswith("kB")}
    own_kib = kib["Private_Dirty"] + kib["Private_Clean"]
    assert own_kib < 40 * 1024 < kib["Rss"]


@needs_proc
@pytest.mark.parametrize("landmark_model", LandmarkModelName)
def test_the_fork_server_is_single_threaded(landmark_model: LandmarkModelName) -> None:
    with contextlib.closing(DecoderPool(landmark_model=LandmarkModel(landmark_model))) as pool:
        assert decodes_completely(pool)
        rows = read_status(get_fork_server_pid(pool))
        assert rows["Threads"] == "1"
        assert Path(f"/proc/{get_fork_server_pid(pool)}/cmdline").read_bytes().count(b"fork_server") == 1


@needs_proc
def test_a_killed_fork_server_ends_its_streams_and_is_restarted(
    pool: DecoderPool,
) -> None:
    items = decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS)
    read_until_first_frame(items)
    decoder_pid, fork_server_pid = get_decoder_pid(pool), get_fork_server_pid(pool)
    os.kill(fork_server_pid, signal.SIGKILL)
    with pytest.raises(InvalidMediaError, match="signal SIGKILL"):
        list(items)
    assert wait_until(lambda: not is_alive(decoder_pid))
    assert decodes_completely(pool)
    assert get_fork_server_pid(pool) != fork_server_pid
    assert not is_alive(fork_server_pid)


@needs_proc
def test_running_streams_survive_when_no_file_descriptors_are_left(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clip("mpegts")
    pipe = partial_pipe(data)
    items = decode_in_sandbox(pool, pipe, LIMITS)
    read_until_first_frame(items)
    assert wait_until(lambda: len(pool._ready) == 1)
    (spare,) = pool._ready
    os.kill(spare.pid, signal.SIGKILL)  # type: ignore[union-attr]
    with monkeypatch.context() as patched:
        patched.setattr(fork_client.tempfile, "TemporaryFile", _raise_too_many_open_files)
        with pytest.raises(DecoderError, match=r"no decoder process could be started: .*Too many open files"):
            list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    pipe.write(data[len(data) * 3 // 4 :])
    pipe.close()
    assert isinstance([*items][-1], EndOfStream)
    assert wait_until(lambda: decodes_without_error(pool))


def decodes_without_error(running: DecoderPool) -> bool:
    try:
        return decodes_completely(running)
    except DecoderError:  # from a start that failed earlier, without file descriptors
        return False


def _raise_too_many_open_files() -> None:
    raise OSError(24, os.strerror(24))


def test_a_fork_server_that_exits_or_hangs_raises_an_error() -> None:
    for program in ("raise SystemExit(3)", "import sys, time; time.sleep(60)"):
        server = ForkServer([sys.executable, "-c", program], build_environment())
        server._socket.settimeout(0.5)
        with pytest.raises(ForkServerExitedError, match=r"exited with code (3|-9)"):
            server.fork()
        server.close()


def test_a_request_with_lost_file_descriptors_fails_alone(fork_server: ForkServer) -> None:
    """The kernel drops file descriptors if the receiver has no free ones."""
    reject_request(fork_server)
    assert_forks(fork_server)


def test_fork_fails_without_a_free_file_descriptor_for_the_pidfd(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive_fds = fork_client.socket.recv_fds

    def recv_fds(*arguments: Any) -> tuple[Any, ...]:
        message, fds, *rest = receive_fds(*arguments)
        for fd in fds:
            os.close(fd)
        return message, [], *rest

    with monkeypatch.context() as patched:
        patched.setattr(fork_client.socket, "recv_fds", recv_fds)
        with pytest.raises(OSError, match="Too many open files"):
            fork_server.fork()
    assert_forks(fork_server)


@needs_proc
def test_a_fork_server_without_free_file_descriptors_rejects_requests(fork_server: ForkServer) -> None:
    original_limit = resource.prlimit(fork_server.pid, resource.RLIMIT_NOFILE)
    try:
        # Enough for some of the request's descriptors; enough for all of them, but not for the pidfd.
        for free_fds in (2, 4):
            limit = list_free_fds(fork_server)[free_fds]
            resource.prlimit(fork_server.pid, resource.RLIMIT_NOFILE, (limit, original_limit[1]))
            with pytest.raises(OSError, match="Too many open files"):
                fork_server.fork()
            resource.prlimit(fork_server.pid, resource.RLIMIT_NOFILE, original_limit)
    finally:
        resource.prlimit(fork_server.pid, resource.RLIMIT_NOFILE, original_limit)
    assert_forks(fork_server)
    assert wait_until(lambda: list_descendants(fork_server.pid) == set())
    assert_forks(fork_server)  # after it has reaped a child that was never reported to the client


def list_free_fds(fork_server: ForkServer) -> list[int]:
    """Return the free file descriptor numbers of a fork server without children."""
    assert wait_until(lambda: list_descendants(fork_server.pid) == set())
    # The response shows that the descriptors of reaped children have been closed.
    reject_request(fork_server)
    used = {int(fd.name) for fd in Path(f"/proc/{fork_server.pid}/fd").iterdir()}
    return [number for number in range(64) if number not in used]


def reject_request(fork_server: ForkServer) -> None:
    """Send a request with too few file descriptors and assert that it is rejected."""
    with open(os.devnull, "rb") as null_file:  # noqa: PTH123
        socket.send_fds(fork_server._socket, [FORKED], [null_file.fileno()])
    with pytest.raises(OSError, match="Too many open files"):
        fork_server._expect(FORKED, fork_server._receive()[0])


def assert_forks(fork_server: ForkServer) -> None:
    child = fork_server.fork()
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.close()


def test_an_unexpected_startup_error_is_reported_to_the_waiting_stream(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_error() -> None:
        raise ValueError("unexpected")

    monkeypatch.setattr(pool, "_start_child", raise_error)
    with pytest.raises(DecoderError, match="no decoder process could be started: unexpected"):
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    monkeypatch.undo()
    assert wait_until(lambda: decodes_without_error(pool))


def test_a_decoder_of_an_unresponsive_fork_server_counts_as_killed(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = fork_server.fork()
    os.kill(fork_server.pid, signal.SIGSTOP)
    try:
        child.kill()
        monkeypatch.setattr(fork_client, "REAP_TIMEOUT_S", 0.2)
        assert child.wait() == -signal.SIGKILL
    finally:
        os.kill(fork_server.pid, signal.SIGCONT)
    child.close()
    child.kill()  # does nothing: the process id may have been reused


@pytest.mark.parametrize("problem", ["missing", "invalid"])
def test_an_unusable_landmark_model_is_reported(problem: str, tmp_path: Path) -> None:
    path = tmp_path / "landmarks.dat"
    if problem == "invalid":
        path.write_bytes(b"no predictor")
    pool = DecoderPool(landmark_model=LandmarkModel(path=path))
    with pytest.raises(NotFoundError, match=str(path)):
        check_decoding(pool)
    pool.close()


def test_a_relative_landmark_model_path_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.dat").symlink_to(find_dlib_model())
    monkeypatch.chdir(tmp_path)
    pool = DecoderPool(landmark_model=LandmarkModel(path=Path("mine.dat")))
    assert decodes_completely(pool)
    pool.close()


def test_decoders_are_spawned_where_forking_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "can_fork", lambda: False)
    spawning = DecoderPool(spares=0)
    assert decodes_completely(spawning)
    assert spawning._fork_server is None
    spawning.close()


def test_closing_a_pool_stops_a_fork_server_during_startup(
    list_new_processes: Callable[[], set[int]],
) -> None:
    pool, caught = DecoderPool(), []

    def decode_clip() -> None:
        try:
            decodes_completely(pool)
        except NotReadyError as error:
            caught.append(str(error))

    thread = threading.Thread(target=decode_clip)
    thread.start()
    assert wait_until(lambda: pool._fork_server is not None)
    pool.close()
    thread.join(10)
    assert len(caught) == 1
    assert "shutting down" in caught[0]
    assert list_new_processes() == set()
