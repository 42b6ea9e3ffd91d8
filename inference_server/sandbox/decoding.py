"""Decodes and face-tracks untrusted media in a subprocess, so that crashes, hangs and memory use affect one stream only.

Subprocesses also keep vision off the server's GIL.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from gorggle_server.errors import InvalidMediaError, NotReadyError, OutOfRangeError, PreconditionError
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.media.resampling import EndOfStream
from gorggle_server.recognition_options import MediaLimits, RecognitionOptions
from gorggle_server.sandbox.decoder_main import create_probe_clip
from gorggle_server.sandbox.decoder_process import DecoderTimeoutError
from gorggle_server.sandbox.hardening import SandboxFeatures
from gorggle_server.sandbox.protocol import (
    DATA_SIZE,
    HEADER,
    MAX_REQUEST_BYTES,
    DecodeJob,
    DecoderError,
    FailureCode,
    MessageType,
    decode_text,
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

# CPU time limit per second of media over all threads, and fixed overhead. Twice as much as 4K at 60 Hz needs: it stops
# endless loops that the timeout does not detect.
CPU_S_PER_MEDIA_S, CPU_S_OVERHEAD = 10, 60
REENCODE_HINT = "it is damaged or malicious; re-encode it with a standard encoder"


def decode_in_sandbox(
    pool: DecoderPool,
    pipe: BytePipe,
    limits: MediaLimits,
    *,
    video: bool = True,
    audio: bool = True,
    live: bool = False,
    max_faces: int = RecognitionOptions.max_speakers,
    face_identity: bool = True,
    request_id: str = "",
    track_process: Callable[[int], AbstractContextManager[None]] = lambda _pid: contextlib.nullcontext(),
) -> Generator[PipelineItem]:
    """Run ``track_frames(resample(decode(…)))`` in a subprocess. Aborting the pipe kills it at once.

    The context ``track_process(pid)`` is entered while the process decodes.

    Raises:
        InvalidMediaError: as ``decode``; or the media crashes or stalls the decoder, or exceeds its limits.
        OutOfRangeError: as ``resample``.
        NotReadyError: the server is shutting down.
        DecoderError: the process fails for another reason, or violates the protocol.
    """
    cpu_s = CPU_S_OVERHEAD + round(CPU_S_PER_MEDIA_S * limits.max_duration_s)
    job = DecodeJob(limits, video, audio, pool.memory_bytes, cpu_s, live, max_faces, face_identity)
    with pool.acquire(job) as process, track_process(process.pid):
        pipe.set_abort_callback(process.kill)
        try:
            yield from _DecoderClient(process, pipe, job).items()
        except EOFError:
            pipe.raise_abort()
            if pool.is_closed:
                raise NotReadyError("the server is shutting down: send the rest to another one") from None
            _raise_for_exit(process, job, request_id)
        except DecoderTimeoutError:
            pipe.raise_abort()
            _log.warning("request %s: decoder process %d stalled and was killed", request_id, process.pid)
            raise InvalidMediaError(
                f"decoding stalled: no output for {pool.timeout_s:g} s; {REENCODE_HINT}"
            ) from None


def check_decoding(pool: DecoderPool) -> None:
    """Decode 0.1 s of silence in a subprocess and log the missing sandbox features.

    Raises:
        PreconditionError: decoder processes do not work on this system.
    """
    pipe = BytePipe()
    pipe.write(create_probe_clip())
    pipe.close()
    job = DecodeJob(
        MediaLimits(), video=True, audio=True, memory_bytes=pool.memory_bytes, cpu_s=CPU_S_OVERHEAD
    )
    try:
        with pool.acquire(job) as process:
            *_, last = _DecoderClient(process, pipe, job).items()
            held = process.features
    except (DecoderError, InvalidMediaError, EOFError, DecoderTimeoutError) as error:
        raise PreconditionError(
            f"sandboxed decoding does not work on this system ({error or type(error).__name__}): increase "
            "decoder_memory_bytes if it is low, or set sandbox_decoding to false to decode in the server process"
        ) from error
    assert isinstance(last, EndOfStream), "the last item is EndOfStream"
    missing = [protection.name for protection in SandboxFeatures if protection not in held]
    _log.info(
        "media is decoded in sandboxed subprocesses; unavailable protections: %s",
        ", ".join(map(str, missing)) or "none",
    )


class _DecoderClient:
    """Runs one job on a decoder process."""

    def __init__(self, process: DecoderProcess, pipe: BytePipe, job: DecodeJob) -> None:
        self._process, self._pipe, self._job = process, pipe, job
        self._validator = ProtocolValidator(job)
        self._media_ended = False

    def items(self) -> Iterator[PipelineItem]:
        """Yield the items up to the end."""
        self._process.reset_timeout()
        while True:
            header = self._validator.parse_header(self._process.receive(HEADER.size))
            if header.kind is MessageType.DATA_REQUEST:
                self._send_media(header.number)
                continue
            body = np.empty(header.size, np.uint8)
            self._process.receive_into(body.data)
            if header.kind is MessageType.FAILED:
                self._raise_failure(header, decode_text(body.data))
            item = self._validator.parse_item(header, body)
            if item is None:
                continue
            yield item
            if isinstance(item, EndOfStream):
                return
            self._process.reset_timeout()

    def _send_media(self, wanted: int) -> None:
        """Send available media to the process, waiting for the client if there is none."""
        data = self._pipe.read(min(wanted, MAX_REQUEST_BYTES))
        # Requests after the end of the media do not count as progress.
        if not self._media_ended:
            self._process.reset_timeout()
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
                    f"decoding this file needs more than the limit of {self._job.memory_bytes // 2**20} MiB of memory: "
                    "downscale the video, 1280x720 is sufficient"
                )
        raise DecoderError(f"the decoder process failed: {text}")


def _raise_for_exit(process: DecoderProcess, job: DecodeJob, request_id: str) -> NoReturn:
    code = process.wait()
    if code >= 0:
        raise DecoderError(f"the decoder process exited with code {code} before the end of the media")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    _log.warning("request %s: decoder process %d was killed by %s", request_id, process.pid, name)
    if -code == signal.SIGXCPU:
        raise InvalidMediaError(
            f"decoding this file takes more than {job.cpu_s} s of CPU time: {REENCODE_HINT}"
        )
    raise InvalidMediaError(f"the decoder failed on this file (signal {name}): {REENCODE_HINT}")
