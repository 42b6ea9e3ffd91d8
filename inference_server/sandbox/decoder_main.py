"""``python -m gorggle_server.sandbox.decoder_main FD [NAME [PATH]]``: decodes and face-tracks one stream in a sandbox.

Started by ``decoder_process``, with the media on standard input and the results on standard output (see ``protocol``).
FD is an empty open file for media that must be spooled, NAME the landmark model and PATH its file (see ``LandmarkModel``). The
process loads everything, waits for its job, sandboxes itself, decodes and exits. ``fork_server`` starts decoders faster.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import wave
from pathlib import Path
from typing import IO, TYPE_CHECKING

import cv2
import numpy as np

from gorggle_server.errors import InvalidMediaError, OutOfRangeError
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.media.demuxer import StreamInfo, decode
from gorggle_server.media.resampling import EndOfStream, Waveform, resample
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.sandbox import hardening, protocol
from gorggle_server.sandbox.protocol import DecodeJob, FailureCode, Header, MessageType
from gorggle_server.vision import face_embedding
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.face_geometry import BoundingBox
from gorggle_server.vision.frame_stage import track_frames
from gorggle_server.vision.landmark_model import LandmarkModel
from gorggle_server.vision.mouth_cropper import load_mean_face
from gorggle_server.vision.mouth_tracker import FrameResult

if TYPE_CHECKING:
    from gorggle_server.sandbox.hardening import SandboxFeatures
    from gorggle_server.vision.frame_stage import PipelineItem

PROBE_CLIP_SAMPLES = 1600
# Small messages are sent together, because waking the server costs more than processing them. All are flushed before
# the process waits for input.
MAX_BUFFERED_BYTES = 64 * 2**10
BUFFERED_TYPES = frozenset({MessageType.AUDIO, MessageType.MOUTH, MessageType.FRAME})


def create_probe_clip() -> bytes:
    """Return 0.1 s of silence as a WAV file."""
    clip = io.BytesIO()
    with wave.open(clip, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, PROBE_CLIP_SAMPLES, "NONE", "not compressed"))
        file.writeframes(bytes(2 * PROBE_CLIP_SAMPLES))
    return clip.getvalue()


class MediaRequester:
    """Requests the media from the server chunk by chunk; at most one chunk is buffered."""

    def __init__(self, results: ResultWriter, media_fd: int) -> None:
        self._results, self._media_fd = results, media_fd
        self._piece = b""

    def read(self, size: int) -> bytes:
        """Return 1 to ``size`` bytes; ``b""`` at the end."""
        if not self._piece:
            self._results.send(Header(MessageType.DATA_REQUEST, number=protocol.MAX_REQUEST_BYTES))
            (length,) = protocol.DATA_SIZE.unpack(read_fully(self._media_fd, protocol.DATA_SIZE.size))
            self._piece = read_fully(self._media_fd, length)
        data, self._piece = self._piece[:size], self._piece[size:]
        return data


class ResultWriter:
    """Writes messages to the server; with ``live``, frames are sent at once."""

    def __init__(self, results_fd: int) -> None:
        self._fd = results_fd
        self._buffer = bytearray()
        self.live = False

    def send(self, header: Header, body: bytes | memoryview = b"") -> None:
        """Write a message, blocking while the pipe is full; messages of ``BUFFERED_TYPES`` may be delayed."""
        self._buffer += header.pack()
        self._buffer += memoryview(body).cast("B")
        is_held = header.kind in BUFFERED_TYPES and not (self.live and header.kind is MessageType.FRAME)
        if is_held and len(self._buffer) < MAX_BUFFERED_BYTES:
            return
        rest = memoryview(self._buffer)
        self._buffer = bytearray()
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def send_item(self, item: PipelineItem) -> None:
        """Write an item of the pipeline."""
        match item:
            case StreamInfo():
                self.send(Header(MessageType.INFO, size=protocol.INFO.size), protocol.encode_info(item))
            case FrameResult():
                for header, body in protocol.encode_frame_result(item):
                    self.send(header, body)
            case Waveform():
                samples = item.samples.astype("<i2", copy=False)
                self.send(Header(MessageType.AUDIO, size=samples.nbytes, number=item.start), samples.data)
            case EndOfStream():
                self.send(Header(MessageType.END, size=protocol.END.size), protocol.encode_end(item))

    def send_failure(self, failure: FailureCode, text: str = "") -> None:
        """Write the reason why decoding has failed."""
        body = text.encode(errors="replace")[: protocol.MAX_TEXT_BYTES]
        self.send(Header(MessageType.FAILED, size=len(body), number=failure), body)


def main() -> int:
    """Decode one stream; the exit code is 0 if the result has been reported to the server."""
    results_fd = _take_over_fd(1)
    protection = hardening.isolate_signals_and_network() | hardening.drop_privileges()
    detector = preload(LandmarkModel.from_arguments(sys.argv[2:]))
    return serve(0, results_fd, os.fdopen(int(sys.argv[1]), "w+b"), protection, detector)


def preload(landmark_model: LandmarkModel) -> FaceDetector:
    """Load everything that is loaded on first use, because the sandbox cannot open files.

    Raises:
        NotFoundError: a model does not exist or is invalid.
        ModelFormatError: a file of the package is damaged.
    """
    cv2.setNumThreads(1)  # FFmpeg uses the CPUs; this also makes OpenCV load its plug-ins now
    for _ in resample(decode(io.BytesIO(create_probe_clip()), MediaLimits()), MediaLimits()):
        pass
    detector = FaceDetector(landmark_model)
    empty = np.zeros((480, 640), np.uint8)
    detector.detect(empty)
    detector.predict_landmarks(empty, BoundingBox(100, 100, 300, 300))
    load_mean_face()
    face_embedding.preload()
    return detector


def serve(
    media_fd: int, results_fd: int, spool_file: IO[bytes], features: SandboxFeatures, detector: FaceDetector
) -> int:
    """Receive a job, enable the sandbox and run the job; return the exit code.

    Args:
        media_fd: to read the job and the media from.
        results_fd: to write the results to.
        spool_file: empty, for media that must be spooled.
        features: sandbox features that are active already.
        detector: detects faces and landmarks.
    """
    results = ResultWriter(results_fd)
    with contextlib.suppress(BrokenPipeError, EOFError):  # the server has gone
        results.send(Header(MessageType.READY))
        job = DecodeJob.unpack(read_fully(media_fd, protocol.JOB.size))
        results.live = job.live
        _silence_standard_error()
        features |= hardening.apply_limits(job.memory_bytes, job.cpu_s, job.limits.max_spooled_bytes)
        _run_job(job, features, results, MediaRequester(results, media_fd), spool_file, detector)
    return 0


def _run_job(
    job: DecodeJob,
    protection: SandboxFeatures,
    results: ResultWriter,
    reader: MediaRequester,
    spool_file: IO[bytes],
    detector: FaceDetector,
) -> None:
    results.send(Header(MessageType.SANDBOXED, number=protection))
    try:
        decoded = decode(
            reader,
            job.limits,
            video=job.video,
            audio=job.audio,
            live=job.live,
            spool_file=spool_file,
        )
        items = resample(decoded, job.limits)
        tracked = track_frames(
            items,
            detector,
            max_faces=job.max_faces,
            audio=job.audio,
            live=job.live,
            face_identity=job.face_identity,
        )
        for item in tracked:
            results.send_item(item)
    except (BrokenPipeError, EOFError):
        raise
    except InvalidMediaError as error:
        results.send_failure(FailureCode.INVALID_MEDIA, str(error))
    except OutOfRangeError as error:
        results.send_failure(FailureCode.OUT_OF_RANGE, str(error))
    except Exception as error:  # the border of the process
        if _is_out_of_memory(error):
            results.send_failure(FailureCode.MEMORY)
        else:
            results.send_failure(FailureCode.INTERNAL, _describe_location(error))


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "code", None) == cv2.Error.StsNoMem


def _describe_location(error: BaseException) -> str:
    """Return the type and location of an error. Its message is omitted, because it may contain untrusted input."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return type(error).__name__
    # The message of an errno has no untrusted input.
    cause = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
    name = Path(place.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__}{cause} in {name}, line {place.tb_lineno}"


def read_fully(fd: int, size: int) -> bytes:
    """Read exactly ``size`` bytes.

    Raises:
        EOFError: the server closed its end.
    """
    data = bytearray()
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


def _take_over_fd(fd: int) -> int:
    """Duplicate a standard descriptor and redirect the original to standard error, so that nothing else writes to it."""
    duplicate = os.dup(fd)
    os.dup2(2, fd)
    return duplicate


def _silence_standard_error() -> None:
    """Redirect standard output and error to /dev/null, so that no untrusted input reaches the server's log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(nowhere, fd)
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
