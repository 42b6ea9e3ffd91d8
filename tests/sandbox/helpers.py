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
needs_proc = pytest.mark.skipif(not PROC.joinpath("self/fd").exists(), reason="this system has no /proc")

ORDER = DecodeJob(LIMITS, video=True, audio=True, memory_bytes=2**30, cpu_s=60)
LIVE = functools.partial(clip, "mpegts", noisy=True)

# A real decoder, shut in as ever, in which another function stands for FFmpeg.
_REPLACED = """
import ctypes, os, socket, sys, threading
from gorggle_server.errors import InvalidMediaError
from gorggle_server.sandbox import decoder_main

def decode(reader, limits, **choice):
{body}
    yield

given, decoder_main.preload = decoder_main.decode, lambda landmark_model: None
decoder_main.decode = decode
sys.exit(decoder_main.main())
"""
# No decoder at all, which says that it is one and then does something else.
_POSING = """
import os, sys
from gorggle_server.sandbox.protocol import DATA_SIZE, MAX_REQUEST_BYTES, Header, MessageType

def say(*header):
    os.write(1, Header(*header).pack())

say(MessageType.READY)
say(MessageType.SANDBOXED)
{body}
"""


def decoder_that(body: str) -> tuple[str, ...]:
    """Return the command of a decoder whose ``decode`` is replaced by ``body``, which has ``reader``."""
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return (sys.executable, "-c", _REPLACED.format(body=indented))


def impostor_that(body: str) -> tuple[str, ...]:
    """Return the command of a fake decoder; ``body`` follows its first two messages."""
    return (sys.executable, "-c", _POSING.format(body=body))


def piped(data: bytes, *, complete: bool = True) -> BytePipe:
    """Return a pipe that contains ``data``."""
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    if complete:
        pipe.close()
    return pipe


def pool_of(command: tuple[str, ...], **settings: float) -> DecoderPool:
    return DecoderPool(command=command, spares=0, **settings)  # type: ignore[arg-type]


def the_child(pool: DecoderPool) -> int:
    """Return the process id of the running decoder."""
    (process,) = pool._running
    return process.pid


def up_to_first_frame(items: Iterator[PipelineItem]) -> None:
    assert any(isinstance(item, FrameResult) for item in items)


def live(data: bytes) -> BytePipe:
    """Return a pipe with the first three quarters of a stream."""
    return piped(data[: len(data) * 3 // 4], complete=False)


def is_alive(pid: int) -> bool:
    """Return whether the process exists, including zombies."""
    return (PROC / str(pid)).exists()


def until(is_so: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Wait until a condition holds."""
    deadline = time.monotonic() + limit_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_so()


def descendants(pid: int | str = "self") -> set[int]:
    """Return the processes that a process and its children have started and not reaped."""
    found: set[int] = set()
    # A process or a thread may end while this one looks; then its children are another's, or gone.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in (PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in (thread / "children").read_text().split():
                    found |= {int(child)} | descendants(child)
    return found


def status(pid: int) -> dict[str, str]:
    """Return a process's status from /proc."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
