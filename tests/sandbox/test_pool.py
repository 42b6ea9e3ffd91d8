"""Decoder processes start in time, one per stream, and end with their stream, pool and server."""

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
    LIVE,
    ORDER,
    PROC,
    is_alive,
    live,
    needs_proc,
    piped,
    pool_of,
    the_child,
    until,
    up_to_first_frame,
)

Born = Callable[[], set[int]]
# One that waits for the next stream, and the one that it was forked from.
AT_REST = 2 if can_fork() else 1


def descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return sum(1 for _ in (PROC / "self/fd").iterdir())


def test_processes_that_die_at_start_are_the_servers_fault_and_not_tried_for_ever() -> None:
    begun = time.monotonic()
    pool = pool_of((sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(DecoderError, match=r"during startup \(.*exit code 3.*exit code 3.*exit code 3\)"):
        list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    pool.close()
    assert time.monotonic() - begun < 10


def test_a_program_that_is_not_there_is_the_servers_fault() -> None:
    pool = pool_of(("/nowhere/python",))
    with pytest.raises(DecoderError, match="no decoder process could be started"):
        list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    pool.close()


def test_an_error_explains_what_to_do_if_decoders_do_not_work() -> None:
    pool = pool_of((sys.executable, "-c", "raise SystemExit(3)"))
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
def test_an_abort_kills_the_process_at_once_wherever_it_is_waited_for() -> None:
    pool = DecoderPool(timeout_s=60)
    pipe, caught = live(LIVE()), []
    items = decode_in_sandbox(pool, pipe, LIMITS)
    up_to_first_frame(items)
    pid = the_child(pool)
    os.kill(pid, signal.SIGSTOP)

    def read() -> None:
        try:
            list(items)
        except ConnectionResetError as error:
            caught.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    time.sleep(0.2)
    begun = time.monotonic()
    pipe.abort(ConnectionResetError("the client is gone"))
    reading.join(10)
    assert time.monotonic() - begun < 2
    assert len(caught) == 1
    assert not is_alive(pid)
    pool.close()


@needs_proc
def test_an_abort_before_the_first_read_is_not_lost(pool: DecoderPool) -> None:
    pipe = live(LIVE())
    pipe.abort(ConnectionResetError("the client is gone"))
    with pytest.raises(ConnectionResetError):
        list(decode_in_sandbox(pool, pipe, LIMITS))


@needs_proc
def test_a_consumer_that_stops_takes_the_process_with_it(pool: DecoderPool) -> None:
    items = decode_in_sandbox(pool, live(LIVE()), LIMITS)
    up_to_first_frame(items)
    pid = the_child(pool)
    items.close()
    assert not is_alive(pid)


@needs_proc
def test_no_process_and_no_descriptor_is_left_after_many_streams(pool: DecoderPool, born: Born) -> None:
    list(decode_in_sandbox(pool, piped(clip()), LIMITS))  # what is loaded and started once
    assert until(lambda: len(born()) == AT_REST)
    before = descriptors()
    for number in range(20):
        if number % 4 == 0:
            assert list(decode_in_sandbox(pool, piped(clip()), LIMITS))
        elif number % 4 == 1:
            next(decode_in_sandbox(pool, live(LIVE()), LIMITS))
        elif number % 4 == 2:
            with pytest.raises(InvalidMediaError):
                list(decode_in_sandbox(pool, piped(b"no media at all"), LIMITS))
        else:
            items = decode_in_sandbox(pool, live(LIVE()), LIMITS)
            up_to_first_frame(items)
            os.kill(the_child(pool), signal.SIGKILL)
            with pytest.raises(InvalidMediaError):
                list(items)
    assert until(lambda: len(born()) == AT_REST), "one that waits for the next stream"
    assert descriptors() <= before
    pool.close()
    assert born() == set()
    assert descriptors() < before


@needs_proc
def test_a_pool_that_closes_ends_streams_and_processes(born: Born) -> None:
    pool = DecoderPool()
    items = decode_in_sandbox(pool, live(LIVE()), LIMITS)
    up_to_first_frame(items)
    pool.close()
    with pytest.raises(NotReadyError, match="shutting down"):
        list(items)
    assert born() == set()
    with pytest.raises(NotReadyError):
        list(decode_in_sandbox(pool, piped(clip()), LIMITS))


@needs_proc
def test_a_spare_that_died_is_replaced(pool: DecoderPool) -> None:
    list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    assert until(lambda: len(pool._ready) == 1)
    (spare,) = pool._ready
    os.kill(spare.pid, signal.SIGKILL)  # type: ignore[union-attr]
    (*_, end) = decode_in_sandbox(pool, piped(clip()), LIMITS)
    assert isinstance(end, EndOfStream)


@needs_proc
def test_a_process_that_waits_ready_is_had_in_50_ms(pool: DecoderPool) -> None:
    took_s = []
    for _ in range(5):
        with pool.acquire(ORDER):
            pass
        assert until(lambda: len(pool._ready) == 1)
        begun = time.monotonic()
        with pool.acquire(ORDER):
            took_s.append(time.monotonic() - begun)
    assert min(took_s) < 0.05


@needs_proc
@pytest.mark.parametrize("is_at_work", [True, False])
def test_a_decoder_ends_when_its_server_is_killed(is_at_work: bool) -> None:
    server = f"""
import time
from gorggle_server.sandbox.pool import DecoderPool
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.sandbox.protocol import DecodeJob
pool = DecoderPool()
job = DecodeJob(MediaLimits(), video=True, audio=True, memory_bytes=2**30, cpu_s=60)
with pool.acquire(job) as process:
    if {is_at_work}:
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
    assert until(lambda: not is_alive(pid))


@needs_proc
def test_termination_signals_do_not_end_decoders(pool: DecoderPool) -> None:
    """Ctrl-C and supervisors signal the whole process group; the server drains."""
    data = clip("mpegts")
    pipe = live(data)
    items = decode_in_sandbox(pool, pipe, LIMITS)
    up_to_first_frame(items)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(the_child(pool), number)
    pipe.write(data[len(data) * 3 // 4 :])
    pipe.close()
    (*_, end) = items
    assert isinstance(end, EndOfStream)
    assert end.frames == 50
