"""Files that are no videos but say so, or that are far more than they seem."""

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
    """Make them; what the page has to say of each, by its name."""
    contents = {
        "zip-bomb.mp4": (zip_bomb(), "cannot be decoded"),
        "playlist.mp4": (PLAYLIST, "cannot be decoded"),
        "page.webm": (b"<!doctype html><script>alert(1)</script>", "cannot be decoded"),
        "five-hours.mp4": (stretched_video(5 * 3600), "the limit is"),
        "huge-picture.webm": (huge_image(), ""),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {name: says for name, (_, says) in contents.items()}


def zip_bomb() -> bytes:
    """A hundred megabytes of nothing in an archive in an archive."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("movie.mp4", bytes(100 * 2**20))
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("movies.zip", inner.getvalue())
    return outer.getvalue()


def stretched_video(seconds: int) -> bytes:
    """Two black pictures, hours apart."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for at in (0, seconds * 25):
            frame = av.VideoFrame.from_ndarray(np.zeros((360, 320), np.uint8), "yuv420p")
            frame.pts = at
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def huge_image() -> bytes:
    """Small pictures that say of themselves that they are 16 383 pixels wide and high: gigabytes, once decoded."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for at in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuv420p")
            frame.pts = at
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    # A key frame of VP8 begins with a mark, then its width and height.
    mark = b"\x9d\x01\x2a"
    said, forged = (mark + struct.pack("<HH", size, size) for size in (64, 16_383))
    content = file.getvalue()
    assert said in content
    return content.replace(said, forged)
