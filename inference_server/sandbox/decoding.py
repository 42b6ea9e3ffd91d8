"""Decodes and looks at a stranger's media in a process of its own: what crashes, stalls or bloats it costs its stream alone.

And what sees in a process of its own waits for no other stream's Python.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from gorggle_server.errors import InvalidMediaError, NotReadyError, OutOfRangeError, PreconditionError
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.media.demuxer import MediaLimits
from gorggle_server.media.resampling import EndOfStream
from gorggle_server.sandbox.decoder_main import probe_clip
from gorggle_server.sandbox.decoder_process import StalledError
from gorggle_server.sandbox.hardening import SandboxFeatures
from gorggle_server.sandbox.protocol import (
    DATA_SIZE,
    HEADER,
    MAX_REQUEST_BYTES,
    DecodeJob,
    DecoderError,
    FailureCode,
    MessageType,
    text_of,
)
from gorggle_server.sandbox.protocol_validation import ProtocolValidator

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager

    from gorggle_server.sandbox.decoder_process import DecoderProcess
    from gorggle_server.sandbox.pool import DecoderPool
    from gorggle_server.sandbox.protocol import Header
    from gorggle_server.vision.frame_stage import PipelineItem

_log = logging.getLogger(__name__)

# Processor time that a second of media may take, all threads together, and what everything may take besides. Twice
# what 4K at 60 pictures a second needs: a limit against loops, behind the limit on stalling.
CPU_S_PER_MEDIA_S, CPU_S_OVERHEAD = 10, 60
REENCODE_HINT = "it is damaged, or made to do harm; write it anew with an ordinary encoder"


def decode_in_sandbox(
    pool: DecoderPool,
    pipe: BytePipe,
    limits: MediaLimits,
    *,
    pictures: bool = True,
    sound: bool = True,
    live: bool = False,
    max_faces: int = 4,
    request_id: str = "",
    at_work: Callable[[int], AbstractContextManager[None]] = lambda _pid: contextlib.nullcontext(),
) -> Generator[PipelineItem]:
    """What ``track_frames(resample(decode(…)))`` gives, from a process of its own. Aborting the pipe kills that at once.

    While process PID decodes, ``at_work(PID)`` is entered.

    Raises:
        InvalidMediaError: as ``decode``; or the media kills the decoder, stalls it, or needs more than it may have.
        OutOfRangeError: as ``resample``.
        NotReadyError: the server is ending.
        DecoderError: the process fails for a reason of its own, or does not keep to its part.
    """
    cpu_s = CPU_S_OVERHEAD + round(CPU_S_PER_MEDIA_S * limits.max_duration_s)
    order = DecodeJob(limits, pictures, sound, pool.memory_bytes, cpu_s, live, max_faces)
    with pool.acquire(order) as process, at_work(process.pid):
        pipe.on_abort(process.kill)
        try:
            yield from _Conversation(process, pipe, order).items()
        except EOFError:
            pipe.raise_abort()
            if pool.is_closed:
                raise NotReadyError("the server is shutting down: send the rest to another one") from None
            _raise_death(process, order, request_id)
        except StalledError:
            pipe.raise_abort()
            _log.warning("request %s: decoder process %d stalled and was killed", request_id, process.pid)
            raise InvalidMediaError(
                f"decoding stalled: nothing came of this file for {pool.stall_s:g} s; {REENCODE_HINT}"
            ) from None


def check_decoding(pool: DecoderPool) -> None:
    """Decode a tenth of a second of silence in a process, and log what that is shut in with.

    Raises:
        PreconditionError: decoder processes do not work here.
    """
    pipe = BytePipe()
    pipe.write(probe_clip())
    pipe.close()
    order = DecodeJob(
        MediaLimits(), pictures=True, sound=True, memory_bytes=pool.memory_bytes, cpu_s=CPU_S_OVERHEAD
    )
    try:
        with pool.acquire(order) as process:
            *_, last = _Conversation(process, pipe, order).items()
            held = process.protection
    except (DecoderError, InvalidMediaError, EOFError, StalledError) as error:
        raise PreconditionError(
            f"media cannot be decoded in processes of their own here ({error or type(error).__name__}): raise "
            "decoder_memory_bytes if it is low, or set sandbox_decoding to false to decode in the server's process"
        ) from error
    assert isinstance(last, EndOfStream), "a conversation ends with the end"
    missing = [protection.name for protection in SandboxFeatures if protection not in held]
    _log.info(
        "media is decoded in processes of their own; not to be had here: %s",
        ", ".join(map(str, missing)) or "nothing",
    )


class _Conversation:
    """One order, and the answers to it."""

    def __init__(self, process: DecoderProcess, pipe: BytePipe, order: DecodeJob) -> None:
        self._process, self._pipe, self._order = process, pipe, order
        self._reception = ProtocolValidator(order)
        self._media_ended = False

    def items(self) -> Iterator[PipelineItem]:
        """What is heard and seen, up to the end."""
        self._process.restart_clock()
        while True:
            header = self._reception.header(self._process.receive(HEADER.size))
            if header.kind is MessageType.NEED:
                self._supply(header.number)
                continue
            body = np.empty(header.size, np.uint8)
            self._process.receive_into(body.data)
            if header.kind is MessageType.FAILED:
                self._raise_failure(header, text_of(body.data))
            item = self._reception.item(header, body)
            if item is None:
                continue
            yield item
            if isinstance(item, EndOfStream):
                return
            self._process.restart_clock()

    def _supply(self, wanted: int) -> None:
        """Pass on what there is, waiting for the client as long as it is given."""
        data = self._pipe.read(min(wanted, MAX_REQUEST_BYTES))
        # To ask on and on after the end is no sign of life.
        if not self._media_ended:
            self._process.restart_clock()
        self._media_ended = not data
        self._process.send(DATA_SIZE.pack(len(data)) + data)

    def _raise_failure(self, header: Header, text: str) -> NoReturn:
        match header.number:
            case FailureCode.INVALID_MEDIA:
                raise InvalidMediaError(text)
            case FailureCode.OUT_OF_RANGE:
                raise OutOfRangeError(text)
            case FailureCode.MEMORY:
                raise InvalidMediaError(
                    f"decoding this file needs more memory than the {self._order.memory_bytes // 2**20} MiB that a "
                    "decoder may have: scale the video down, lips need no more than 1280x720"
                )
        raise DecoderError(f"the decoder process failed: {text}")


def _raise_death(process: DecoderProcess, order: DecodeJob, request_id: str) -> NoReturn:
    code = process.exit_code()
    if code >= 0:
        raise DecoderError(f"the decoder process ended with exit code {code} before its media did")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    _log.warning("request %s: decoder process %d was ended by %s", request_id, process.pid, name)
    if -code == signal.SIGXCPU:
        raise InvalidMediaError(
            f"decoding this file takes more than {order.cpu_s} s of processor time: {REENCODE_HINT}"
        )
    raise InvalidMediaError(f"the decoder failed on this file (signal {name}): {REENCODE_HINT}")
