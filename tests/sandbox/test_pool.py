"""Decoder pool: processes start quickly, one per stream, and end with their stream, pool or server."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from gorggle_server.errors import InvalidMediaError, NotReadyError, PreconditionError
from gorggle_server.media.resampling import EndOfStream
from gorggle_server.sandbox.decoding import check_decoding, decode_in_sandbox
from gorggle_server.sandbox.fork_client import can_fork
from gorggle_server.sandbox.pool import DecoderPool
from gorggle_server.sandbox.protocol import DecoderError
from tests.media.samples import LIMITS, clip
from tests.sandbox.helpers import (
    JOB,
    PROC,
    get_decoder_pid,
    is_alive,
    make_pipe,
    make_pool,
    needs_proc,
    noisy_clip,
    partial_pipe,
    read_until_first_frame,
    wait_until,
)

ListProcesses = Callable[[], set[int]]
# The spare decoder, and the fork server that it was forked from.
IDLE_PROCESSES = 2 if can_fork() else 1


def count_open_fds() -> int:
    """Return the number of open file descriptors of this process."""
    return sum(1 for _ in (PROC / "self/fd").iterdir())


def test_processes_that_exit_at_startup_are_retried_a_limited_number_of_times() -> None:
    start_s = time.monotonic()
    pool = make_pool((sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(DecoderError, match=r"during startup \(.*exit code 3.*exit code 3.*exit code 3\)"):
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    pool.close()
    assert time.monotonic() - start_s < 10


def test_a_missing_program_raises_decoder_error() -> None:
    pool = make_pool(("/nowhere/python",))
    with pytest.raises(DecoderError, match="no decoder process could be started"):
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    pool.close()


def test_a_failed_startup_check_names_the_sandbox_setting() -> None:
    pool = make_pool((sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(PreconditionError, match="sandbox_decoding"):
        check_decoding(pool)
    pool.close()


def test_unavailable_sandbox_features_are_logged_at_startup(
    pool: DecoderPool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        check_decoding(pool)
    assert "media is decoded in sandboxed subprocesses; unavailable protections: " in caplog.text


@needs_proc
def test_an_abort_kills_an_unresponsive_process() -> None:
    pool = DecoderPool(timeout_s=60)
    pipe, caught = partial_pipe(noisy_clip()), []
    items = decode_in_sandbox(pool, pipe, LIMITS)
    read_until_first_frame(items)
    pid = get_decoder_pid(pool)
    os.kill(pid, signal.SIGSTOP)

    def read_items() -> None:
        try:
            list(items)
        except ConnectionResetError as error:
            caught.append(error)

    thread = threading.Thread(target=read_items)
    thread.start()
    time.sleep(0.2)
    start_s = time.monotonic()
    pipe.abort(ConnectionResetError("the client is gone"))
    thread.join(10)
    assert time.monotonic() - start_s < 2
    assert len(caught) == 1
    assert not is_alive(pid)
    pool.close()


@needs_proc
def test_an_abort_before_the_first_read_is_not_lost(pool: DecoderPool) -> None:
    pipe = partial_pipe(noisy_clip())
    pipe.abort(ConnectionResetError("the client is gone"))
    with pytest.raises(ConnectionResetError):
        list(decode_in_sandbox(pool, pipe, LIMITS))


@needs_proc
def test_closing_the_stream_ends_the_process(pool: DecoderPool) -> None:
    items = decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS)
    read_until_first_frame(items)
    pid = get_decoder_pid(pool)
    items.close()
    assert not is_alive(pid)


@needs_proc
def test_many_streams_leak_no_processes_or_file_descriptors(
    pool: DecoderPool, list_new_processes: ListProcesses
) -> None:
    list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))  # start what is shared by all streams
    assert wait_until(lambda: len(list_new_processes()) == IDLE_PROCESSES)
    before = count_open_fds()
    for number in range(20):
        if number % 4 == 0:
            assert list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
        elif number % 4 == 1:
            next(decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS))
        elif number % 4 == 2:
            with pytest.raises(InvalidMediaError):
                list(decode_in_sandbox(pool, make_pipe(b"no media at all"), LIMITS))
        else:
            items = decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS)
            read_until_first_frame(items)
            os.kill(get_decoder_pid(pool), signal.SIGKILL)
            with pytest.raises(InvalidMediaError):
                list(items)
    assert wait_until(lambda: len(list_new_processes()) == IDLE_PROCESSES), "expected only the idle processes"
    assert count_open_fds() <= before
    pool.close()
    assert list_new_processes() == set()
    assert count_open_fds() < before


@needs_proc
def test_closing_a_pool_ends_its_streams_and_processes(list_new_processes: ListProcesses) -> None:
    pool = DecoderPool()
    items = decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS)
    read_until_first_frame(items)
    pool.close()
    with pytest.raises(NotReadyError, match="shutting down"):
        list(items)
    assert list_new_processes() == set()
    with pytest.raises(NotReadyError):
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))


@needs_proc
def test_a_killed_spare_process_is_replaced(pool: DecoderPool) -> None:
    list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    assert wait_until(lambda: len(pool._ready) == 1)
    (spare,) = pool._ready
    os.kill(spare.pid, signal.SIGKILL)  # type: ignore[union-attr]
    (*_, end) = decode_in_sandbox(pool, make_pipe(clip()), LIMITS)
    assert isinstance(end, EndOfStream)


@needs_proc
def test_a_spare_process_is_acquired_within_50_ms(pool: DecoderPool) -> None:
    took_s = []
    for _ in range(5):
        with pool.acquire(JOB):
            pass
        assert wait_until(lambda: len(pool._ready) == 1)
        start_s = time.monotonic()
        with pool.acquire(JOB):
            took_s.append(time.monotonic() - start_s)
    assert min(took_s) < 0.05


@needs_proc
@pytest.mark.parametrize("is_decoding", [True, False])
def test_a_decoder_ends_when_its_server_is_killed(is_decoding: bool) -> None:
    server = f"""
import time
from gorggle_server.sandbox.pool import DecoderPool
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.sandbox.protocol import DecodeJob
pool = DecoderPool()
job = DecodeJob(MediaLimits(), video=True, audio=True, memory_bytes=2**30, cpu_s=60)
with pool.acquire(job) as process:
    if {is_decoding}:
        print(process.pid, flush=True)
        time.sleep(60)
while not pool._ready:
    time.sleep(0.01)
(spare,) = pool._ready
print(spare.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as running:
        pid = int(running.stdout.readline())
        assert is_alive(pid)
        running.kill()
    assert wait_until(lambda: not is_alive(pid))


@needs_proc
def test_termination_signals_do_not_end_decoders(pool: DecoderPool) -> None:
    """Ctrl-C and supervisors signal the whole process group; the server drains."""
    data = clip("mpegts")
    pipe = partial_pipe(data)
    items = decode_in_sandbox(pool, pipe, LIMITS)
    read_until_first_frame(items)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(get_decoder_pid(pool), number)
    pipe.write(data[len(data) * 3 // 4 :])
    pipe.close()
    (*_, end) = items
    assert isinstance(end, EndOfStream)
    assert end.frames == 50
