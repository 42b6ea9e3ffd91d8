"""Writes images and audio as a live Matroska stream (RFC 9559).

The server does not decode the images of clients itself: wrapped as Matroska, they take the same way through the
sandboxed decoder as a media file.
"""

from __future__ import annotations

import struct

VIDEO_TRACK, AUDIO_TRACK = 1, 2
_TIMESTAMP_SCALE_NS = 100_000
_UNKNOWN_SIZE = b"\x01\xff\xff\xff\xff\xff\xff\xff"
_KEYFRAME = 0x80
_VIDEO, _AUDIO = 1, 2


def write_header(is_jpeg: bool, size_px: tuple[int, int], sample_rate_hz: int | None) -> bytes:
    """Return the start of the file with its tracks.

    Args:
        is_jpeg: the images are JPEG files, otherwise I420 planes.
        size_px: width and height of the images; (0, 0) if the images themselves declare it.
        sample_rate_hz: of 16-bit mono PCM; None for a file without audio.
    """
    width_px, height_px = size_px
    ebml = _element(0x1A45DFA3, _uint(0x4287, 4) + _uint(0x4285, 2) + _element(0x4282, b"matroska"))
    info = _element(0x1549A966, _uint(0x2AD7B1, _TIMESTAMP_SCALE_NS))
    image = _uint(0xB0, width_px) + _uint(0xBA, height_px)
    if not is_jpeg:
        image += _element(0x2EB524, b"I420")
    codec = b"V_MJPEG" if is_jpeg else b"V_UNCOMPRESSED"
    tracks = _track(VIDEO_TRACK, _VIDEO, codec, _element(0xE0, image))
    if sample_rate_hz is not None:
        audio = _element(0xB5, struct.pack(">d", sample_rate_hz)) + _uint(0x9F, 1) + _uint(0x6264, 16)
        tracks += _track(AUDIO_TRACK, _AUDIO, b"A_PCM/INT/LIT", _element(0xE1, audio))
    return ebml + _id(0x18538067) + _UNKNOWN_SIZE + info + _element(0x1654AE6B, tracks)


def write_block(track: int, time_s: float, data: bytes) -> bytes:
    """Return one image, or the next samples (int16, little-endian), as a cluster."""
    timestamp = _uint(0xE7, round(time_s * 1e9 / _TIMESTAMP_SCALE_NS))
    block = struct.pack(">BhB", 0x80 | track, 0, _KEYFRAME) + data
    return _element(0x1F43B675, timestamp + _element(0xA3, block))


def _track(number: int, kind: int, codec: bytes, settings: bytes) -> bytes:
    head = _uint(0xD7, number) + _uint(0x73C5, number) + _uint(0x83, kind) + _element(0x86, codec)
    return _element(0xAE, head + settings)


def _uint(identifier: int, value: int) -> bytes:
    return _element(identifier, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _element(identifier: int, data: bytes) -> bytes:
    # The size takes 8 bytes, of which the first holds the length marker.
    return _id(identifier) + (len(data) | 1 << 56).to_bytes(8, "big") + data


def _id(identifier: int) -> bytes:
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
