"""Arrays as media sources: mouth crops, audio and single frames are sent as they are, whole clips of frames as H.264.

numpy and PyAV (which encodes H.264, and comes with the extra ``server``) are imported only when arrays are given.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

from gorggle._protobuf.encode import (
    StreamRequest,
    encode_frame,
    encode_mouth_crops,
    encode_pcm,
)
from gorggle.errors import ConfigurationError, InvalidRequestError, InvalidSourceError
from gorggle.v1 import media_pb2

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
SAMPLE_RATE_RANGE_HZ = 8000, 192_000
BYTES_PER_SAMPLE = 2
CROP_SIZE_PX = 96
CROP_BYTES = CROP_SIZE_PX * CROP_SIZE_PX
# Too small for a face; also catches a single colour image (H, W, 3) passed as grey frames 3 pixels wide.
MIN_FRAME_SIDE_PX = 16
JPEG_SIGNATURE = b"\xff\xd8\xff"
# x264's scale from 0 (lossless) to 51; 12 is visually lossless.
X264_CRF = 12


class Array(Protocol):
    """An object that numpy can convert to an array."""

    @property
    def shape(self) -> Any:
        """Its dimensions."""

    @property
    def dtype(self) -> Any:
        """The type of its elements."""


Samples: TypeAlias = "bytes | Array"
"""Audio: int16 or float32 (from -1 to 1), mono (S,) or with channels (S, C); or int16 mono as little-endian bytes."""


@dataclass(frozen=True)
class MouthCrops:
    """The next mouth crops of one face, for iterable sources such as a camera.

    Attributes:
        pixels: uint8 (T, 96, 96), cut as described in protos/gorggle/v1/media.proto.
        times_s: T timestamps in seconds from the start of the media, never decreasing.
        face: identifies the face if there are several people; 0 or more.
    """

    pixels: Array
    times_s: Sequence[float]
    face: int = 0

    def to_messages(self, chunk_bytes: int) -> Iterator[StreamRequest]:
        """Yield requests of about ``chunk_bytes``.

        Raises:
            InvalidSourceError: the pixels have another shape, or there is not one timestamp for each crop.
        """
        crops, step = validate_mouth_crops(self.pixels), max(1, chunk_bytes // CROP_BYTES)
        if len(crops) != len(self.times_s):
            raise InvalidSourceError(
                f"{len(crops)} mouth crops have {len(self.times_s)} times: give one for each"
            )
        for start in range(0, len(crops), step):
            part = slice(start, start + step)
            yield encode_mouth_crops(crops[part].tobytes(), self.times_s[part], self.face)


@dataclass(frozen=True)
class AudioChunk:
    """The next audio samples, for iterable sources such as a microphone."""

    samples: Samples
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def to_messages(self, chunk_bytes: int) -> Iterator[StreamRequest]:
        """Yield requests of at most ``chunk_bytes``.

        Raises:
            InvalidSourceError: the samples have another type or shape.
        """
        yield from encode_audio_chunks(encode_audio(self.samples), self.sample_rate_hz, chunk_bytes)


@dataclass(frozen=True)
class VideoFrame:
    """The next video frame, for iterable sources such as a camera.

    Attributes:
        image: uint8 (H, W) grey or (H, W, 3) RGB, which is sent uncompressed; or the bytes of a JPEG file.
        time_s: seconds from the start of the media, increasing.
    """

    image: bytes | Array
    time_s: float

    def to_message(self) -> StreamRequest:
        """Return the request.

        Raises:
            InvalidSourceError: the image has another type or shape, or is not a JPEG file.
        """
        if isinstance(self.image, bytes | bytearray | memoryview):
            data = bytes(self.image)
            if not data.startswith(JPEG_SIGNATURE):
                raise InvalidSourceError(
                    f"a frame begins with {data[:4].hex(' ') or 'nothing'}: give arrays or JPEG files"
                )
            return encode_frame(self.time_s, data)
        import numpy as np

        image = validate_frames(np.asarray(self.image)[None])[0]
        return encode_frame(self.time_s, _convert_to_i420(image))


def is_array(source: object) -> TypeGuard[Array]:
    """Return whether numpy can convert the object to an array."""
    return hasattr(source, "shape") and hasattr(source, "dtype")


# ------------------------------------------------------------------------------------------------------------ checks


def validate_frame_rate(frame_rate_hz: float | None) -> Fraction:
    """Return the frame rate as a fraction. A wrong rate is the most common cause of wrong words."""
    if frame_rate_hz is None:
        raise InvalidRequestError("frames in an array have no timestamps: give frame_rate_hz=")
    if not (math.isfinite(frame_rate_hz) and 1 <= frame_rate_hz <= 1000):
        raise InvalidRequestError(f"frame_rate_hz is {frame_rate_hz}: give 1 to 1000 frames a second")
    return Fraction(frame_rate_hz).limit_denominator(1001)


def validate_sample_rate(sample_rate_hz: int) -> int:
    """Return the sample rate, if the server accepts it."""
    minimum, maximum = SAMPLE_RATE_RANGE_HZ
    if (
        isinstance(sample_rate_hz, bool)
        or not isinstance(sample_rate_hz, int)
        or not minimum <= sample_rate_hz <= maximum
    ):
        raise InvalidRequestError(f"the sample rate is {sample_rate_hz!r}: give {minimum} to {maximum} Hz")
    return sample_rate_hz


def validate_mouth_crops(source: Array) -> npt.NDArray[np.uint8]:
    """Return mouth crops as uint8 (T, 96, 96), T at least 1."""
    crops = _require_uint8(source, "mouth crops")
    if crops.ndim != 3 or crops.shape[1:] != (CROP_SIZE_PX, CROP_SIZE_PX) or not len(crops):
        raise InvalidSourceError(
            f"mouth crops have the shape {crops.shape}: give (T, {CROP_SIZE_PX}, {CROP_SIZE_PX})"
        )
    return crops


def validate_frames(source: Array) -> npt.NDArray[np.uint8]:
    """Return frames as uint8 (T, H, W) grey or (T, H, W, 3) RGB, T at least 1."""
    array = _require_uint8(source, "frames")
    is_colour = array.ndim == 4 and array.shape[3] == 3
    if not (array.ndim == 3 or is_colour) or not len(array) or min(array.shape[1:3]) < MIN_FRAME_SIDE_PX:
        raise InvalidSourceError(
            f"frames have the shape {array.shape}: give (T, H, W) grey or (T, H, W, 3) RGB, "
            f"each side at least {MIN_FRAME_SIDE_PX} pixels"
        )
    return array


def encode_audio(samples: Samples) -> bytes:
    """Return audio as int16 mono in little-endian bytes."""
    if isinstance(samples, bytes):
        if len(samples) % BYTES_PER_SAMPLE:
            raise InvalidSourceError(f"audio holds {len(samples)} bytes: give whole samples of 16 bits")
        return samples
    import numpy as np

    array = np.asarray(samples)
    if array.dtype not in (np.int16, np.float32) or array.ndim not in (1, 2):
        raise InvalidSourceError(
            f"audio is {array.dtype} of shape {array.shape}: give int16 or float32 of shape (S,) or (S, C)"
        )
    if array.dtype == np.float32:
        array = np.clip(np.nan_to_num(array), -1, 1) * np.float32(2**15 - 1)
    if array.ndim == 2:
        array = array.mean(axis=1)
    encoded: bytes = np.rint(array).astype("<i2").tobytes()
    return encoded


def _require_uint8(source: Array, name: str) -> npt.NDArray[np.uint8]:
    import numpy as np

    array = np.asarray(source)
    if array.dtype != np.uint8:
        raise InvalidSourceError(f"{name} are of {array.dtype}: give uint8, 0 (black) to 255 (white)")
    return array


# ---------------------------------------------------------------------------------------------------------- messages


def encode_crops(
    crops: npt.NDArray[np.uint8],
    rate_hz: Fraction,
    audio: bytes | None,
    sample_rate_hz: int,
    chunk_bytes: int,
) -> Generator[StreamRequest, None, None]:
    """Yield mouth crops, about ``chunk_bytes`` of pixels per message, interleaved with their audio."""
    step = max(1, chunk_bytes // CROP_BYTES)
    sent = 0
    for start in range(0, len(crops), step):
        part = crops[start : start + step]
        end = start + len(part)
        yield encode_mouth_crops(part.tobytes(), (float(frame / rate_hz) for frame in range(start, end)))
        if audio is not None:
            audio_end = _get_audio_end(end, rate_hz, sample_rate_hz)
            yield from encode_audio_chunks(audio[sent:audio_end], sample_rate_hz, chunk_bytes)
            sent = audio_end
    yield from encode_audio_chunks((audio or b"")[sent:], sample_rate_hz, chunk_bytes)


def encode_audio_chunks(
    audio: bytes, sample_rate_hz: int, chunk_bytes: int
) -> Generator[StreamRequest, None, None]:
    """Yield audio in messages of at most ``chunk_bytes``."""
    validate_sample_rate(sample_rate_hz)
    step = max(BYTES_PER_SAMPLE, chunk_bytes - chunk_bytes % BYTES_PER_SAMPLE)
    for start in range(0, len(audio), step):
        yield encode_pcm(audio[start : start + step], sample_rate_hz)


def _pad_to_even(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Repeat the last row or column of odd sides: 4:2:0 has one chroma sample for 2 x 2 pixels."""
    import numpy as np

    odd = [(0, side % 2) for side in image.shape[:2]] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, odd, mode="edge")


def _convert_to_i420(image: npt.NDArray[np.uint8]) -> media_pb2.I420Image:
    """Return an image as planes (ITU-R BT.601, limited range) of even width and height."""
    import numpy as np

    even = _pad_to_even(image)
    height, width = even.shape[:2]
    if even.ndim == 2:
        luma = 16 + even * np.float32(219 / 255)
        chroma = np.full((2, height // 2, width // 2), 128, np.uint8)
    else:
        to_luma = np.array([65.481, 128.553, 24.966], np.float32) / 255
        to_chroma = np.array([[-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32) / 255
        luma = 16 + even @ to_luma
        small = even.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3), dtype=np.float32)
        chroma = np.rint(128 + np.moveaxis(small @ to_chroma.T, 2, 0)).astype(np.uint8)
    planes = np.rint(luma).astype(np.uint8).tobytes() + chroma.tobytes()
    return media_pb2.I420Image(width_px=width, height_px=height, data=planes)


def encode_matroska(
    frames: npt.NDArray[np.uint8], rate_hz: Fraction, audio: bytes | None, sample_rate_hz: int
) -> Iterator[bytes]:
    """Yield a Matroska file of the frames and the audio: visually lossless H.264, and PCM.

    Raises:
        ConfigurationError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigurationError(
            "frames are sent as a video file, which takes PyAV: pip install 'gorggle[server]', or give a file"
        ) from error
    return _mux_matroska(av, frames, rate_hz, audio, sample_rate_hz)


def _mux_matroska(
    av: Any, frames: npt.NDArray[np.uint8], rate_hz: Fraction, audio: bytes | None, sample_rate_hz: int
) -> Iterator[bytes]:
    sink, sent = _Sink(), 0
    with av.open(sink, "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=rate_hz)
        video.options = {"crf": str(X264_CRF), "preset": "veryfast"}
        video.height, video.width = (side + side % 2 for side in frames.shape[1:3])
        video.pix_fmt = "yuv420p"
        audio_stream = (
            container.add_stream("pcm_s16le", rate=sample_rate_hz, layout="mono") if audio else None
        )
        for index, image in enumerate(frames):
            container.mux(video.encode(_create_video_frame(av, image, index, rate_hz)))
            if audio and audio_stream is not None:
                is_last = index + 1 == len(frames)
                audio_end = len(audio) if is_last else _get_audio_end(index + 1, rate_hz, sample_rate_hz)
                _mux_audio(av, container, audio_stream, audio[sent:audio_end], sent // BYTES_PER_SAMPLE)
                sent = audio_end
            yield sink.pop_written()
        for stream in container.streams:
            container.mux(stream.encode(None))
    yield sink.pop_written()


def _create_video_frame(av: Any, image: npt.NDArray[np.uint8], index: int, rate_hz: Fraction) -> Any:
    import numpy as np

    even = np.ascontiguousarray(_pad_to_even(image))
    frame = av.VideoFrame.from_ndarray(even, format="rgb24" if even.ndim == 3 else "gray")
    frame.pts, frame.time_base = index, 1 / rate_hz
    return frame


def _mux_audio(av: Any, container: Any, stream: Any, samples: bytes, position: int) -> None:
    if not samples:
        return
    import numpy as np

    frame = av.AudioFrame.from_ndarray(np.frombuffer(samples, "<i2")[None, :], format="s16", layout="mono")
    frame.sample_rate = stream.rate
    frame.pts, frame.time_base = position, Fraction(1, stream.rate)
    container.mux(stream.encode(frame))


def _get_audio_end(frame: int, rate_hz: Fraction, sample_rate_hz: int) -> int:
    """Return the byte offset of the audio at which a frame begins."""
    return BYTES_PER_SAMPLE * int(frame * sample_rate_hz / rate_hz)


class _Sink:
    """A write-only file in memory. It is not seekable, so the muxer does not rewrite anything."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        """Append data."""
        self._written += data
        return len(data)

    def pop_written(self) -> bytes:
        """Return and remove the data written so far."""
        data, self._written = bytes(self._written), bytearray()
        return data
