"""The fork server starts isolated decoders quickly and handles its failures."""

from __future__ import annotations

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
from gorggle_server.vision.face_detector import find_landmark_model
from tests.media.samples import LIMITS, clip
from tests.sandbox.helpers import (
    LIVE,
    ORDER,
    descendants,
    is_alive,
    live,
    needs_proc,
    piped,
    status,
    the_child,
    until,
    up_to_first_frame,
)

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system has no descriptors of processes")


@pytest.fixture(scope="module")
def parent() -> Iterator[ForkServer]:
    """A ready fork server for tests that do not change it."""
    made = ForkServer(FORK_SERVER, build_environment())
    made.fork().kill()
    yield made
    made.close()


def parent_of(running: DecoderPool) -> int:
    assert running._fork_server is not None
    return running._fork_server.pid


def is_read(running: DecoderPool) -> bool:
    """Assert that a stream is decoded to its end."""
    (*_, end) = decode_in_sandbox(running, piped(clip()), LIMITS)
    return isinstance(end, EndOfStream) and end.frames == 50


def test_a_decoder_is_had_at_once(parent: ForkServer) -> None:
    took_s = []
    for _ in range(5):
        begun = time.monotonic()
        child = parent.fork()
        took_s.append(time.monotonic() - begun)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        child.close()
    assert min(took_s) < 0.1  # to load everything takes ten times as long


@needs_proc
def test_the_landmark_model_is_there_once_for_all(pool: DecoderPool) -> None:
    is_read(pool)
    with pool.acquire(ORDER) as process:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup")
        try:
            rows = dict(line.split(":", 1) for line in rollup.read_text().splitlines()[1:])
        except PermissionError:
            pytest.skip("a decoder is not to be looked into, and this user is not root")
    kib = {name: int(value.split()[0]) for name, value in rows.items() if value.strip().endswith("kB")}
    own_kib = kib["Private_Dirty"] + kib["Private_Clean"]
    assert own_kib < 40 * 1024 < kib["Rss"]


@needs_proc
def test_the_parent_has_one_thread_and_no_network(pool: DecoderPool) -> None:
    is_read(pool)
    rows = status(parent_of(pool))
    assert rows["Threads"] == "1"
    assert Path(f"/proc/{parent_of(pool)}/cmdline").read_bytes().count(b"fork_server") == 1


@needs_proc
def test_a_parent_that_is_killed_takes_its_streams_with_it_and_the_next_stream_gets_another(
    pool: DecoderPool,
) -> None:
    items = decode_in_sandbox(pool, live(LIVE()), LIMITS)
    up_to_first_frame(items)
    decoder, parent = the_child(pool), parent_of(pool)
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(InvalidMediaError, match="signal SIGKILL"):
        list(items)
    assert until(lambda: not is_alive(decoder))
    assert is_read(pool)
    assert parent_of(pool) != parent
    assert not is_alive(parent)


@needs_proc
def test_a_server_without_descriptors_keeps_the_streams_it_has(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clip("mpegts")
    pipe = live(data)
    items = decode_in_sandbox(pool, pipe, LIMITS)
    up_to_first_frame(items)
    assert until(lambda: len(pool._ready) == 1)
    (spare,) = pool._ready
    os.kill(spare.pid, signal.SIGKILL)  # type: ignore[union-attr]
    with monkeypatch.context() as patched:
        patched.setattr(fork_client.tempfile, "TemporaryFile", _no_descriptor)
        with pytest.raises(DecoderError, match=r"no decoder process could be started: .*Too many open files"):
            list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    pipe.write(data[len(data) * 3 // 4 :])
    pipe.close()
    assert isinstance([*items][-1], EndOfStream)
    assert until(lambda: is_read_at_last(pool))


def is_read_at_last(running: DecoderPool) -> bool:
    try:
        return is_read(running)
    except DecoderError:  # by what waited while there were no descriptors
        return False


def _no_descriptor() -> None:
    raise OSError(24, os.strerror(24))


def test_a_failing_fork_server_is_distinguished_from_a_working_one() -> None:
    for program in ("raise SystemExit(3)", "import sys, time; time.sleep(60)"):
        made = ForkServer([sys.executable, "-c", program], build_environment())
        made._socket.settimeout(0.5)
        with pytest.raises(ForkServerExitedError, match=r"exited with code (3|-9)"):
            made.fork()
        made.close()


def test_a_request_of_which_a_part_is_lost_costs_that_request_alone(parent: ForkServer) -> None:
    """Descriptors are dropped if the receiver has no free ones."""
    reject_request(parent)
    assert_forks(parent)


def test_a_server_without_a_free_descriptor_for_the_pidfd_gets_an_error(
    parent: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = fork_client.socket.recv_fds

    def recv_fds(*arguments: Any) -> tuple[Any, ...]:
        answer, fds, *rest = taken(*arguments)
        for fd in fds:
            os.close(fd)
        return answer, [], *rest

    with monkeypatch.context() as patched:
        patched.setattr(fork_client.socket, "recv_fds", recv_fds)
        with pytest.raises(OSError, match="Too many open files"):
            parent.fork()
    assert_forks(parent)


@needs_proc
def test_a_fork_server_without_free_descriptors_refuses_and_continues(parent: ForkServer) -> None:
    usual = resource.prlimit(parent.pid, resource.RLIMIT_NOFILE)
    try:
        for room in (2, 4):  # for a part of what a request carries; for all of that, but not for the process
            limit = free_descriptors_of_idle(parent)[room]
            resource.prlimit(parent.pid, resource.RLIMIT_NOFILE, (limit, usual[1]))
            with pytest.raises(OSError, match="Too many open files"):
                parent.fork()
            resource.prlimit(parent.pid, resource.RLIMIT_NOFILE, usual)
    finally:
        resource.prlimit(parent.pid, resource.RLIMIT_NOFILE, usual)
    assert_forks(parent)
    assert until(lambda: descendants(parent.pid) == set())
    assert_forks(parent)  # although it has reaped a child unknown to the server


def free_descriptors_of_idle(parent: ForkServer) -> list[int]:
    """Return the free descriptor numbers of a fork server, once it has closed those of all its children."""
    assert until(lambda: descendants(parent.pid) == set())
    # It answers a request after it has closed what belonged to the children that it has reaped.
    reject_request(parent)
    used = {int(fd.name) for fd in Path(f"/proc/{parent.pid}/fd").iterdir()}
    return [number for number in range(64) if number not in used]


def reject_request(parent: ForkServer) -> None:
    """Send a request with too few descriptors, and read the error that it gets."""
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        socket.send_fds(parent._socket, [FORKED], [nothing.fileno()])
    with pytest.raises(OSError, match="Too many open files"):
        parent._expect(FORKED, parent._receive()[0])


def assert_forks(parent: ForkServer) -> None:
    child = parent.fork()
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.close()


def test_any_error_while_starting_a_process_is_reported_to_the_waiting_stream(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise ValueError("unexpected")

    monkeypatch.setattr(pool, "_start_child", fails)
    with pytest.raises(DecoderError, match="no decoder process could be started: unexpected"):
        list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    monkeypatch.undo()
    assert until(lambda: is_read_at_last(pool))


def test_a_decoder_whose_parent_says_nothing_more_counts_as_killed(
    parent: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = parent.fork()
    os.kill(parent.pid, signal.SIGSTOP)
    try:
        child.kill()
        monkeypatch.setattr(fork_client, "REAP_TIMEOUT_S", 0.2)
        assert child.wait() == -signal.SIGKILL
    finally:
        os.kill(parent.pid, signal.SIGCONT)
    child.close()
    child.kill()  # does nothing: its number may be another's by now


@pytest.mark.parametrize("what", ["there is none", "it is none"])
def test_an_invalid_landmark_model_is_reported_with_its_own_message(what: str, tmp_path: Path) -> None:
    path = tmp_path / "landmarks.dat"
    if what == "it is none":
        path.write_bytes(b"no predictor")
    unable = DecoderPool(landmark_model=path)
    with pytest.raises(NotFoundError, match=str(path)):
        check_decoding(unable)
    unable.close()


def test_a_landmark_model_is_found_from_where_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.dat").symlink_to(find_landmark_model())
    monkeypatch.chdir(tmp_path)
    able = DecoderPool(landmark_model=Path("mine.dat"))
    assert is_read(able)
    able.close()


def test_where_nothing_can_be_forked_decoders_are_started_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "can_fork", lambda: False)
    spawning = DecoderPool(spares=0)
    assert is_read(spawning)
    assert spawning._fork_server is None
    spawning.close()


def test_a_pool_that_closes_while_everything_is_loaded_ends_that(born: Callable[[], set[int]]) -> None:
    hurried, caught = DecoderPool(), []

    def read() -> None:
        try:
            is_read(hurried)
        except NotReadyError as error:
            caught.append(str(error))

    reading = threading.Thread(target=read)
    reading.start()
    assert until(lambda: hurried._fork_server is not None)
    hurried.close()
    reading.join(10)
    assert len(caught) == 1
    assert "shutting down" in caught[0]
    assert born() == set()
