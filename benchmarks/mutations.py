"""Mutations of valid input: protobuf fields, media containers, raw bytes.

Every function takes the input and a ``random.Random``, and returns a mutated copy.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

EDGE_INTEGERS = (
    *(0, 1, -1, 2, 25, 127, 128, 255, 2**15, 2**16, 2**31 - 1, -(2**31)),
    *(2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1),
)
EDGE_FLOATS = (0.0, -0.0, 1e-300, 0.5, 1.0, -1.0, 1e9, 1e300, math.inf, -math.inf, math.nan)
EDGE_STRINGS = (
    *("", "x", "gorggle-mini-1", "\0", "\u202e\U0001f600", "../../etc/passwd"),
    *("s3://", "s3://clips/a?x=y", "%00" * 20, "a" * 70_000),
)
_INTEGER_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


# -------------------------------------------------------------------------------------------------------------- bytes


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, set, delete, repeat, move or truncate bytes, one to eight times."""
    spoiled = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        at = rng.randrange(len(spoiled) + 1)
        # Headers at the start of a file are more interesting.
        if rng.random() < 0.4:
            at = min(at, rng.randrange(400))
        length = rng.choice((1, 2, 4, 16, 64, 188, 1000))
        match rng.randrange(7):
            case 0 if at < len(spoiled):
                spoiled[at] ^= 1 << rng.randrange(8)
            case 1:
                spoiled[at : at + 4] = _edge_bytes(4, rng, rng.choice(("big", "little")))
            case 2:
                del spoiled[at : at + length]
            case 3:
                spoiled[at:at] = spoiled[at : at + length] * rng.choice((1, 2, 20))
            case 4:
                spoiled[at : at + length] = rng.randbytes(length)
            case 5:
                other = rng.randrange(len(spoiled) + 1)
                spoiled[at:at] = spoiled[other : other + length]
            case _ if rng.random() < 0.3:
                del spoiled[at:]
    return bytes(spoiled)


def _edge_bytes(count: int, rng: random.Random, order: Literal["big", "little"] = "big") -> bytes:
    return (rng.choice(EDGE_INTEGERS) % 2 ** (8 * count)).to_bytes(count, order)


# ----------------------------------------------------------------------------------------------------------- protobuf


def mutate_message(data: bytes, kind: type[Message], rng: random.Random, other: bytes = b"") -> bytes:
    """Mutate fields of a serialized message by type; in a quarter of the cases its bytes."""
    if rng.random() < 0.25 or not kind.DESCRIPTOR.fields:
        return mutate_wire(data, rng)
    try:
        message = kind.FromString(data)
    except DecodeError:
        return mutate_wire(data, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _mutate_field(message, rng)
    if other and rng.random() < 0.2:
        with contextlib.suppress(DecodeError):
            message.MergeFromString(other)
    return message.SerializeToString()


def mutate_wire(data: bytes, rng: random.Random) -> bytes:
    """Produce malformed wire data: unknown and deeply nested fields, wrong types, wrong lengths."""
    match rng.randrange(5):
        case 0:
            field, wire_type = rng.randrange(1, 30), rng.randrange(8)
            return data + _varint(field << 3 | wire_type) + rng.randbytes(rng.randrange(12))
        case 1:
            depth = rng.choice((3, 90, 101, 500, 5000))
            nested = b""
            for _ in range(depth):
                nested = _varint(rng.choice((1, 2, 4)) << 3 | 2) + _varint(len(nested)) + nested
            return data + nested
        case 2:
            return data + _varint(rng.randrange(1, 8) << 3 | 2) + _varint(rng.choice((2**31, 2**63, 100)))
        case 3:
            return data + _varint(rng.randrange(1, 8) << 3 | 3) * rng.choice((1, 50, 3000))
        case _:
            return mutate_bytes(data, rng)


def _mutate_field(message: Message, rng: random.Random) -> None:
    """Mutate one field, or one inside it."""
    field = rng.choice(message.DESCRIPTOR.fields)
    if rng.random() < 0.15:
        message.ClearField(field.name)
        return
    if field.is_repeated:
        _mutate_repeated(getattr(message, field.name), field, rng)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        if inner.DESCRIPTOR.fields and rng.random() < 0.9:
            _mutate_field(inner, rng)
    else:
        setattr(message, field.name, _edge_value(field, getattr(message, field.name), rng))


def _mutate_repeated(values: Any, field: FieldDescriptor, rng: random.Random) -> None:
    if field.message_type is None:
        values.extend(_edge_value(field, None, rng) for _ in range(rng.choice((1, 3, 200))))
        return
    match rng.randrange(4):
        case 0 if len(values):
            del values[rng.randrange(len(values)) :]
        case 1 if len(values) > 1:
            values.reverse()
        case 2 if len(values):
            _mutate_field(values[rng.randrange(len(values))], rng)
        case _:
            for _ in range(rng.choice((1, 2, 40))):
                inner = values.add()
                if rng.random() < 0.5:
                    _mutate_field(inner, rng)


def _edge_value(field: FieldDescriptor, value: Any, rng: random.Random) -> Any:
    if field.cpp_type in _INTEGER_RANGES:
        low, high = _INTEGER_RANGES[field.cpp_type]
        near = value + rng.choice((-1, 1)) if isinstance(value, int) else 0
        return min(high, max(low, rng.choice((*EDGE_INTEGERS, near, rng.randrange(100)))))
    if field.enum_type is not None:
        return rng.choice((0, 1, 2, 3, 4, 99, -1, 2**31 - 1))
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_STRING:
            return rng.choice(EDGE_STRINGS)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return rng.choice((*EDGE_FLOATS, rng.uniform(-5, 5)))
        case _:
            return mutate_bytes(value or rng.randbytes(rng.choice((0, 1, 2, 9216, 32_000))), rng)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# -------------------------------------------------------------------------------------------------------------- media

PACKET_BYTES = 188
_CONTAINER_BOXES = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"udta", b"moof", b"traf", b"mvex")
)


class Part(NamedTuple):
    """A part of a container: positions of its header, of its body, and of its end."""

    start: int
    body: int
    end: int


def mutate_media(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Mutate a media file by its container's structure, or its bytes."""
    if rng.random() < 0.25 or len(data) < 16:
        return mutate_bytes(data, rng)
    if other and rng.random() < 0.08:
        return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
    for _ in range(rng.choice((1, 1, 2, 3))):
        if len(data) > PACKET_BYTES:
            data = mutate_parts(data, rng)
    return data


def mutate_parts(data: bytes, rng: random.Random) -> bytes:
    """Mutate a part of an MP4, Matroska or MPEG transport stream; the bytes of other files.

    In half of the cases the sizes of an MP4's enclosing boxes are corrected.
    """
    parts, mutate_header = _parse_container(data)
    if not parts:
        return mutate_bytes(data, rng)
    # Parts are equally likely, whatever their size; the first ones describe the others.
    start, body, end = rng.choice(parts if rng.random() < 0.6 else parts[:8])
    other, part = rng.choice(parts), data[start:end]
    match rng.randrange(8):
        case 0:
            changed = b""
        case 1:
            changed = part * rng.choice((2, 3, 30, 300 if len(part) <= PACKET_BYTES else 2))
        case 2:
            changed = data[other.start : other.end]
        case 3:
            changed = data[other.start : other.body] + data[body:end]
        case 4 | 5:
            changed = mutate_header(data[start:body], rng) + data[body:end]
        case 6 if end - body > 4:
            at = rng.randrange(body, end - 3)
            changed = data[start:at] + _edge_bytes(4, rng) + data[at + 4 : end]
        case _:
            changed = data[start:body] + mutate_bytes(data[body:end], rng)
    result = bytearray(data[:start] + changed + data[end:])
    if mutate_header is _mutate_box_header and rng.random() < 0.5:
        for outer in parts:
            if outer.start < start and outer.end >= end:
                size = outer.end - outer.start + len(changed) - len(part)
                result[outer.start : outer.start + 4] = (size % 2**32).to_bytes(4)
    return bytes(result)


def _parse_container(data: bytes) -> tuple[list[Part], Callable[[bytes, random.Random], bytes]]:
    """Return the parts of a container, and the mutation of their headers."""
    if data[:4] == b"\x1aE\xdf\xa3":
        return parse_elements(data), _mutate_element_header
    if data[:1] == b"G" and data[188:189] in (b"G", b""):
        starts = range(0, len(data) - PACKET_BYTES + 1, PACKET_BYTES)
        return [Part(at, at + 5, at + PACKET_BYTES) for at in starts], _mutate_packet_header
    return parse_boxes(data), _mutate_box_header


def parse_boxes(data: bytes, start: int = 0, end: int | None = None) -> list[Part]:
    """Return all boxes of an MP4, outer ones first (ISO/IEC 14496-12, 4.2)."""
    found: list[Part] = []
    end = len(data) if end is None else end
    while start + 8 <= end:
        stop = start + int.from_bytes(data[start : start + 4])
        if stop < start + 8 or stop > end:
            break
        found.append(Part(start, start + 8, stop))
        if data[start + 4 : start + 8] in _CONTAINER_BOXES:
            found += parse_boxes(data, start + 8, stop)
        start = stop
    return found


def _mutate_box_header(header: bytes, rng: random.Random) -> bytes:
    """Change the size, the type, or add a 64-bit size."""
    size, kind = header[:4], header[4:8]
    match rng.randrange(3):
        case 0:
            return _edge_bytes(4, rng) + kind
        case 1:
            return size + rng.choice((b"free", b"moov", b"trak", b"cmov", b"avcC", rng.randbytes(4)))
        case _:
            return b"\0\0\0\1" + kind + _edge_bytes(8, rng)


def parse_elements(data: bytes, start: int = 0, end: int | None = None, depth: int = 0) -> list[Part]:
    """Return all EBML elements of a WebM or Matroska file, outer ones first (RFC 8794)."""
    found: list[Part] = []
    end = len(data) if end is None else end
    while start < end and depth < 6:
        id_length = _vint_length(data[start])
        if id_length > 4 or start + id_length >= end:
            break
        size_at = start + id_length
        size_length = _vint_length(data[size_at])
        body = size_at + size_length
        if size_length > 8 or body > end:
            break
        unknown = (1 << 7 * size_length) - 1
        size = int.from_bytes(data[size_at:body]) & unknown
        stop = end if size == unknown else body + size
        if stop > end:
            break
        found.append(Part(start, body, stop))
        inner = parse_elements(data, body, stop, depth + 1)
        if inner and inner[0].start == body and max(part.end for part in inner) == stop:
            found += inner
        start = stop
    return found


def _mutate_element_header(header: bytes, rng: random.Random) -> bytes:
    """Change the size."""
    sizes = (b"\xff", b"\x80", b"\x01" + b"\xff" * 7, b"\x08" + rng.randbytes(4), b"\x00")
    return header[: _vint_length(header[0])] + rng.choice(sizes)


def _vint_length(first: int) -> int:
    return 9 - first.bit_length()


def _mutate_packet_header(header: bytes, rng: random.Random) -> bytes:
    """Change the flags and the packet id, or the length of the adaptation field (ISO/IEC 13818-1)."""
    if rng.random() < 0.5:
        return header[:1] + rng.randbytes(3) + header[4:]
    return header[:3] + bytes((0x30 | header[3] & 0x0F, rng.choice((0, 1, 183, 184, 255))))
