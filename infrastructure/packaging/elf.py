"""Looks into compiled libraries: which processor they are for, and which glibc they need.

A wheel's tag promises both; this checks the promise, since a function that cannot load its libraries fails only when it
is called. Only what is needed of the format is read: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html and,
for the versions, the Linux Standard Base's section on symbol versioning.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

MAGIC = b"\x7fELF"
MACHINES = {62: "x86_64", 183: "arm64"}
_SECTION_VERSION_NEEDS = 0x6FFFFFFE
_GLIBC = re.compile(rb"GLIBC_(\d+)\.(\d+)")

Version = tuple[int, int]


def is_elf(content: bytes) -> bool:
    """Whether these are a compiled library's bytes."""
    return content.startswith(MAGIC)


def machine(content: bytes) -> str:
    """The processor a library is for.

    Raises:
        ValueError: it is not 64-bit, little-endian, or for a processor that Lambda has.
    """
    if content[4:6] != b"\x02\x01":
        raise ValueError("a library is not 64-bit and little-endian")
    number = struct.unpack_from("<H", content, 18)[0]
    if number not in MACHINES:
        raise ValueError(f"a library is for machine {number}; Lambda has {', '.join(MACHINES.values())}")
    return MACHINES[number]


def glibc(content: bytes) -> Version:
    """The newest glibc whose symbols a library asks for; (0, 0) where it asks for none."""
    return max(_glibc_needs(content), default=(0, 0))


def _glibc_needs(content: bytes) -> Iterator[Version]:
    sections = list(_sections(content))
    for kind, offset, _, link, count in sections:
        if kind != _SECTION_VERSION_NEEDS:
            continue
        names = sections[link][1]
        for _ in range(count):
            _, auxiliaries, _, first, following = struct.unpack_from("<HHIII", content, offset)
            here = offset + first
            for _ in range(auxiliaries):
                _, _, _, name, step = struct.unpack_from("<IHHII", content, here)
                if found := _GLIBC.match(content, names + name):
                    yield int(found[1]), int(found[2])
                here += step
            offset += following


def _sections(content: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Type, offset, size, link and info of each section."""
    (table,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    for index in range(count):
        fields = struct.unpack_from("<IIQQQQIIQQ", content, table + index * size)
        _, kind, _, _, offset, length, link, info, _, _ = fields
        yield kind, offset, length, link, info
