"""Malicious uploads: files that are not videos, and videos that exceed the limits."""

from __future__ import annotations

import io
import struct
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


def write_malicious_files(folder: Path) -> dict[str, str]:
    """Write the files; return the expected error message on the website by file name."""
    contents = {
        "zip-bomb.mp4": (create_zip_bomb(), "cannot be decoded"),
        "playlist.mp4": (PLAYLIST, "cannot be decoded"),
        "page.webm": (b"<!doctype html><script>alert(1)</script>", "cannot be decoded"),
        "five-hours.mp4": (create_stretched_video(5 * 3600), "the limit is"),
        "huge-frame.webm": (create_huge_frame_video(), ""),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {name: message for name, (_, message) in contents.items()}


def create_zip_bomb() -> bytes:
    """Return a nested archive of 100 MiB of zeros."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("movie.mp4", bytes(100 * 2**20))
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("movies.zip", inner.getvalue())
    return outer.getvalue()


def create_stretched_video(seconds: int) -> bytes:
    """Return a video of two black frames that are `seconds` apart."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for pts in (0, seconds * 25):
            frame = av.VideoFrame.from_ndarray(np.zeros((360, 320), np.uint8), "yuv420p")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def create_huge_frame_video() -> bytes:
    """Return a video of small frames whose headers declare 16 383 x 16 383 pixels: gigabytes once decoded."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for pts in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuv420p")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    # In a VP8 key frame, the width and height follow a start code (RFC 6386, section 9.1).
    start_code = b"\x9d\x01\x2a"
    original, forged = (start_code + struct.pack("<HH", size, size) for size in (64, 16_383))
    content = file.getvalue()
    assert original in content
    return content.replace(original, forged)
