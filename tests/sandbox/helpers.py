"""Shared helpers of the decoder process tests: media in a pipe, misbehaving processes and /proc."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.sandbox.pool import DecoderPool
from gorggle_server.sandbox.protocol import DecodeJob
from gorggle_server.vision.frame_stage import PipelineItem
from gorggle_server.vision.mouth_tracker import FrameResult
from tests.media.samples import LIMITS, clip

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not PROC.joinpath("self/fd").exists(), reason="requires /proc")

JOB = DecodeJob(LIMITS, video=True, audio=True, memory_bytes=2**30, cpu_s=60)
noisy_clip = functools.partial(clip, "mpegts", noisy=True)

# A real, sandboxed decoder whose ``decode`` function is replaced.
_REPLACED_DECODE_PROGRAM = """
import ctypes, os, socket, sys, threading
from gorggle_server.errors import InvalidMediaError
from gorggle_server.sandbox import decoder_main

def decode(reader, limits, **options):
{body}
    yield

given, decoder_main.preload = decoder_main.decode, lambda landmark_model: None
decoder_main.decode = decode
sys.exit(decoder_main.main())
"""
# A program that sends the startup messages of a decoder and then runs other code.
_FAKE_DECODER_PROGRAM = """
import os, sys
from gorggle_server.sandbox.protocol import DATA_SIZE, MAX_REQUEST_BYTES, Header, MessageType

def send(*header):
    os.write(1, Header(*header).pack())

send(MessageType.READY)
send(MessageType.SANDBOXED)
{body}
"""


def decoder_command(body: str) -> tuple[str, ...]:
    """Return the command of a decoder whose ``decode`` function has the given body; ``reader`` is in scope."""
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return (sys.executable, "-c", _REPLACED_DECODE_PROGRAM.format(body=indented))


def fake_decoder_command(body: str) -> tuple[str, ...]:
    """Return the command of a fake decoder; ``body`` follows its first two messages."""
    return (sys.executable, "-c", _FAKE_DECODER_PROGRAM.format(body=body))


def make_pipe(data: bytes, *, complete: bool = True) -> BytePipe:
    """Return a pipe that contains ``data``."""
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    if complete:
        pipe.close()
    return pipe


def make_pool(command: tuple[str, ...], **settings: float) -> DecoderPool:
    """Return a pool without spare processes that starts the given command."""
    return DecoderPool(command=command, spares=0, **settings)  # type: ignore[arg-type]


def get_decoder_pid(pool: DecoderPool) -> int:
    """Return the process id of the running decoder."""
    (process,) = pool._running
    return process.pid


def read_until_first_frame(items: Iterator[PipelineItem]) -> None:
    """Consume items up to and including the first frame."""
    assert any(isinstance(item, FrameResult) for item in items)


def partial_pipe(data: bytes) -> BytePipe:
    """Return a pipe with the first three quarters of a stream."""
    return make_pipe(data[: len(data) * 3 // 4], complete=False)


def is_alive(pid: int) -> bool:
    """Return whether the process exists, including zombies."""
    return (PROC / str(pid)).exists()


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Wait until a condition holds or the timeout expires; return whether it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def list_descendants(pid: int | str = "self") -> set[int]:
    """Return the processes that a process and its children have started and not reaped."""
    found: set[int] = set()
    # Processes and threads may exit during the listing.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in (PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in (thread / "children").read_text().split():
                    found |= {int(child)} | list_descendants(child)
    return found


def read_status(pid: int) -> dict[str, str]:
    """Return a process's status from /proc."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
