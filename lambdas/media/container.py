"""Opening a stranger's media with FFmpeg: which formats, which streams, and its errors as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import av
from av.stream import Disposition

from lambdas.common.errors import InvalidMediaError

if TYPE_CHECKING:
    from av.container import InputContainer

# What cameras, phones, browsers and editors write. No playlists (they name further addresses), no image sequences.
FORMATS = "mov,matroska,mpegts,mpeg,avi,flv,asf,ogg,wav,mp3,flac,aac"
FORMATS_IN_WORDS = "MP4, MOV, WebM, Matroska, MPEG-TS, MPEG-PS, AVI, FLV, ASF, Ogg, WAV, MP3, FLAC or AAC"
# Nothing of a file may make FFmpeg open another.
_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "", "enable_drefs": "0"}
_OTHERS_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


@contextlib.contextmanager
def opened(file: IO[bytes] | Any) -> Iterator[InputContainer]:
    """Open media from a file object; closed at the end.

    Raises:
        InvalidMediaError: of no known format, or broken: here, or where the block decodes.
    """
    try:
        with av.open(file, "r", options=_OPTIONS, metadata_errors="replace") as container:
            yield container
    except av.FFmpegError as error:
        raise_failure = getattr(file, "raise_failure", None)
        if raise_failure is not None:
            raise_failure()
        raise InvalidMediaError(
            f"the video cannot be read ({_words(error)}): expected {FORMATS_IN_WORDS}, complete"
        ) from error


def video_stream(container: InputContainer) -> Any | None:
    """The stream of moving pictures; None where there are none (a cover is no moving picture)."""
    for stream in container.streams.video:
        if not stream.disposition & _OTHERS_PICTURES and _is_known(stream):
            return stream
    return None


def audio_stream(container: InputContainer) -> Any | None:
    """The first stream of sound that can be decoded; None where there is none."""
    return next((stream for stream in container.streams.audio if _is_known(stream)), None)


def zero_s(container: InputContainer) -> float:
    """When the media begins on its own clock: its first picture or sound, whichever comes first."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in (video_stream(container), audio_stream(container))
        if stream is not None and stream.start_time is not None and stream.time_base is not None
    ]
    if starts:
        return min(starts)
    return (container.start_time or 0) / av.time_base


def _is_known(stream: Any) -> bool:
    # A stream without a codec context is one for which this FFmpeg has no decoder.
    return stream.codec_context is not None


def _words(error: av.FFmpegError) -> str:
    return (error.strerror or type(error).__name__).lower()
