"""Arrays as media: mouth crops and sound go as they are, whole pictures as H.264 in Matroska.

numpy comes with whoever brings arrays, PyAV (which encodes pictures) with the extra ``server``: neither is imported
before an array is given.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

from gorggle._protobuf.encode import StreamRequest, encode_mouth_crops, encode_pcm
from gorggle.errors import ConfigurationError, InvalidRequestError, InvalidSourceError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
BYTES_PER_SAMPLE = 2
CROP_SIZE_PX = 96
CROP_BYTES = CROP_SIZE_PX * CROP_SIZE_PX
# No face is found in less; it also catches a single colour picture (H, W, 3) taken for grey pictures 3 pixels wide.
MIN_FRAME_SIDE_PX = 16
# x264's scale from 0 (lossless) to 51: at 12 no eye sees a difference.
X264_CRF = 12


class Array(Protocol):
    """Anything that numpy can see as an array."""

    @property
    def shape(self) -> Any:
        """Its sizes."""

    @property
    def dtype(self) -> Any:
        """The type of its elements."""


Samples: TypeAlias = "bytes | Array"
"""Sound: int16, mono, 16 kHz; as an array (S,) or little-endian bytes."""


@dataclass(frozen=True)
class MouthCrops:
    """The next mouth crops of one face, for sources that are iterables of pieces: a camera, say.

    Attributes:
        pixels: uint8 (T, 96, 96), cut as the server would.
        times_s: T seconds from the start of the media, never falling.
        face: any number, constant for one person.
    """

    pixels: Array
    times_s: Sequence[float]
    face: int = 0

    def to_messages(self, chunk_bytes: int) -> Iterator[StreamRequest]:
        """As requests of about ``chunk_bytes``.

        Raises:
            InvalidSourceError: pixels of another shape, or not a time for each crop.
        """
        crops, step = validate_mouth_crops(self.pixels), max(1, chunk_bytes // CROP_BYTES)
        if len(crops) != len(self.times_s):
            raise InvalidSourceError(
                f"{len(crops)} mouth crops have {len(self.times_s)} times: give one for each"
            )
        for start in range(0, len(crops), step):
            piece = slice(start, start + step)
            yield encode_mouth_crops(crops[piece].tobytes(), self.times_s[piece], self.face)


@dataclass(frozen=True)
class AudioChunk:
    """The next sound, for sources that are iterables of pieces: int16 (S,), mono, 16 kHz."""

    samples: Samples

    def to_messages(self, chunk_bytes: int) -> Iterator[StreamRequest]:
        """As requests of at most ``chunk_bytes``.

        Raises:
            InvalidSourceError: samples of another form.
        """
        yield from encode_audio_chunks(encode_audio(self.samples), chunk_bytes)


def is_array(source: object) -> TypeGuard[Array]:
    """Whether numpy can see the object as an array."""
    return hasattr(source, "shape") and hasattr(source, "dtype")


# ------------------------------------------------------------------------------------------------------------ checks


def validate_frame_rate(frame_rate_hz: float | None) -> Fraction:
    """Check the rate of an array of frames; a wrong one is the commonest cause of wrong words."""
    if frame_rate_hz is None:
        raise InvalidRequestError("an array of frames has no times: give frame_rate_hz=")
    if not (math.isfinite(frame_rate_hz) and 1 <= frame_rate_hz <= 1000):
        raise InvalidRequestError(f"frame_rate_hz is {frame_rate_hz}: give 1 to 1000 frames a second")
    return Fraction(frame_rate_hz).limit_denominator(1001)


def validate_mouth_crops(source: Array) -> npt.NDArray[np.uint8]:
    """Check mouth crops: uint8 (T, 96, 96), T at least 1."""
    crops = _require_uint8(source, "mouth crops")
    if crops.ndim != 3 or crops.shape[1:] != (CROP_SIZE_PX, CROP_SIZE_PX) or not len(crops):
        raise InvalidSourceError(
            f"mouth crops have the shape {crops.shape}: give (T, {CROP_SIZE_PX}, {CROP_SIZE_PX})"
        )
    return crops


def validate_frames(source: Array) -> npt.NDArray[np.uint8]:
    """Check pictures: uint8 (T, H, W) grey or (T, H, W, 3) RGB, T at least 1."""
    array = _require_uint8(source, "frames")
    is_colour = array.ndim == 4 and array.shape[3] == 3
    if not (array.ndim == 3 or is_colour) or not len(array) or min(array.shape[1:3]) < MIN_FRAME_SIDE_PX:
        raise InvalidSourceError(
            f"frames have the shape {array.shape}: give (T, H, W) grey or (T, H, W, 3) RGB, "
            f"each side at least {MIN_FRAME_SIDE_PX} pixels"
        )
    return array


def encode_audio(samples: Samples) -> bytes:
    """Check sound and give it as little-endian bytes."""
    if isinstance(samples, bytes):
        if len(samples) % BYTES_PER_SAMPLE:
            raise InvalidSourceError(f"audio holds {len(samples)} bytes: give whole samples of 16 bits")
        return samples
    import numpy as np

    array = np.asarray(samples)
    if array.dtype != np.int16 or array.ndim != 1:
        raise InvalidSourceError(
            f"audio is {array.dtype} of shape {array.shape}: give int16 of shape (S,), mono, {SAMPLE_RATE_HZ} Hz"
        )
    return array.astype("<i2", copy=False).tobytes()


def _require_uint8(source: Array, name: str) -> npt.NDArray[np.uint8]:
    import numpy as np

    array = np.asarray(source)
    if array.dtype != np.uint8:
        raise InvalidSourceError(f"{name} are of {array.dtype}: give uint8, 0 (black) to 255 (white)")
    return array


# ---------------------------------------------------------------------------------------------------------- messages


def encode_crops(
    crops: npt.NDArray[np.uint8], rate_hz: Fraction, audio: bytes | None, chunk_bytes: int
) -> Generator[StreamRequest, None, None]:
    """Mouth crops with the sound in step, about ``chunk_bytes`` of pixels a message."""
    step = max(1, chunk_bytes // CROP_BYTES)
    sent = 0
    for start in range(0, len(crops), step):
        piece = crops[start : start + step]
        end = start + len(piece)
        yield encode_mouth_crops(piece.tobytes(), (float(frame / rate_hz) for frame in range(start, end)))
        if audio is not None:
            until = _get_audio_end(end, rate_hz)
            yield from encode_audio_chunks(audio[sent:until], chunk_bytes)
            sent = until
    yield from encode_audio_chunks((audio or b"")[sent:], chunk_bytes)


def encode_audio_chunks(audio: bytes | None, chunk_bytes: int) -> Generator[StreamRequest, None, None]:
    """Sound alone."""
    step = max(BYTES_PER_SAMPLE, chunk_bytes - chunk_bytes % BYTES_PER_SAMPLE)
    audio = audio or b""
    for start in range(0, len(audio), step):
        yield encode_pcm(audio[start : start + step])


def encode_matroska(frames: npt.NDArray[np.uint8], rate_hz: Fraction, audio: bytes | None) -> Iterator[bytes]:
    """Pictures and sound as a Matroska file: H.264 that looks like the original, and PCM.

    Raises:
        ConfigurationError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigurationError(
            "frames are sent as a video file, which takes PyAV: pip install 'gorggle[server]', or give a file"
        ) from error
    return _mux_matroska(av, frames, rate_hz, audio)


def _mux_matroska(
    av: Any, frames: npt.NDArray[np.uint8], rate_hz: Fraction, audio: bytes | None
) -> Iterator[bytes]:
    sink, sent = _Sink(), 0
    with av.open(sink, "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=rate_hz)
        video.options = {"crf": str(X264_CRF), "preset": "veryfast"}
        video.height, video.width = (side + side % 2 for side in frames.shape[1:3])
        video.pix_fmt = "yuv420p"
        voice = container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono") if audio else None
        for index, picture in enumerate(frames):
            container.mux(video.encode(_create_video_frame(av, picture, index, rate_hz)))
            if audio and voice is not None:
                until = _get_audio_end(index + 1, rate_hz) if index + 1 < len(frames) else len(audio)
                _mux_audio(av, container, voice, audio[sent:until], sent // BYTES_PER_SAMPLE)
                sent = until
            yield sink.pop_written()
        for stream in container.streams:
            container.mux(stream.encode(None))
    yield sink.pop_written()


def _create_video_frame(av: Any, image: npt.NDArray[np.uint8], index: int, rate_hz: Fraction) -> Any:
    import numpy as np

    # 4:2:0 has one colour for four pixels: odd sides are made even by repeating the last row or column.
    odd = [(0, side % 2) for side in image.shape[:2]] + [(0, 0)] * (image.ndim - 2)
    even = np.ascontiguousarray(np.pad(image, odd, mode="edge"))
    frame = av.VideoFrame.from_ndarray(even, format="rgb24" if even.ndim == 3 else "gray")
    frame.pts, frame.time_base = index, 1 / rate_hz
    return frame


def _mux_audio(av: Any, container: Any, stream: Any, samples: bytes, position: int) -> None:
    if not samples:
        return
    import numpy as np

    frame = av.AudioFrame.from_ndarray(np.frombuffer(samples, "<i2")[None, :], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    frame.pts, frame.time_base = position, Fraction(1, SAMPLE_RATE_HZ)
    container.mux(stream.encode(frame))


def _get_audio_end(frame: int, rate_hz: Fraction) -> int:
    """Where in the sound's bytes the given frame begins."""
    return BYTES_PER_SAMPLE * int(frame * SAMPLE_RATE_HZ / rate_hz)


class _Sink:
    """A file to write to that keeps what was written until it is taken. It cannot seek, so nothing is rewritten."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        """Keep data."""
        self._written += data
        return len(data)

    def pop_written(self) -> bytes:
        """What was written since the last time."""
        data, self._written = bytes(self._written), bytearray()
        return data
