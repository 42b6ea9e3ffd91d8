"""Opens untrusted media with FFmpeg, selects streams, and maps errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import IO, TYPE_CHECKING, Any

import av
from av.codec import Codec, codecs_available
from av.stream import Disposition

from gorggle_lambdas.common.errors import InvalidMediaError
from gorggle_lambdas.media import formats

if TYPE_CHECKING:
    from av.container import InputContainer

_NON_VIDEO_DISPOSITIONS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


@contextlib.contextmanager
def open_media(file: IO[bytes] | Any) -> Iterator[InputContainer]:
    """Open media from a file object, as a context manager.

    Raises:
        InvalidMediaError: unknown format or damaged; raised here or while the block decodes.
        Exception: ``S3File.failure``, if the file has one.
    """
    try:
        with av.open(file, "r", options=_build_options(), metadata_errors="replace") as container:
            yield container
    except av.FFmpegError as error:
        _raise_failure(file)
        raise InvalidMediaError(
            f"the video cannot be decoded ({_get_error_text(error)}): expected a complete file in {formats.CONTAINER_NAMES}"
        ) from error
    _raise_failure(file)


def find_video_stream(container: InputContainer) -> Any | None:
    """Return the video stream; None if there is no supported one (cover images do not count)."""
    for stream in container.streams.video:
        if (
            not stream.disposition & _NON_VIDEO_DISPOSITIONS
            and _get_codec_name(stream) in formats.VIDEO_CODECS
        ):
            return stream
    return None


def find_audio_stream(container: InputContainer) -> Any | None:
    """Return the first supported audio stream, or None."""
    streams = container.streams.audio
    return next((stream for stream in streams if _get_codec_name(stream) in formats.AUDIO_CODECS), None)


def get_start_s(container: InputContainer) -> float:
    """Return the start time of the media: its first video frame or audio sample."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in (find_video_stream(container), find_audio_stream(container))
        if stream is not None and stream.start_time is not None and stream.time_base is not None
    ]
    if starts:
        return min(starts)
    return (container.start_time or 0) / av.time_base


@cache
def _build_options() -> dict[str, str]:
    # Prevent a file from opening other files or using unneeded decoders.
    return {
        "format_whitelist": ",".join(container.demuxer for container in formats.CONTAINERS),
        "codec_whitelist": ",".join(sorted(name for name in codecs_available if _is_supported(name))),
        "protocol_whitelist": "",
        "enable_drefs": "0",
    }


def _is_supported(decoder: str) -> bool:
    """Return whether a decoder belongs to a supported codec: a codec may have several decoders."""
    try:
        return Codec(decoder, "r").canonical_name in formats.VIDEO_CODECS | formats.AUDIO_CODECS
    except ValueError:  # PyAV's UnknownCodecError: only an encoder has this name
        return False


def _raise_failure(file: Any) -> None:
    """Raise the error that occurred while FFmpeg read, if any."""
    failure = getattr(file, "failure", None)
    if failure is not None:
        raise failure


def _get_codec_name(stream: Any) -> str:
    # A stream without a codec context is one that this FFmpeg build cannot decode.
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else ""


def _get_error_text(error: av.FFmpegError) -> str:
    return (error.strerror or type(error).__name__).lower()
