"""Mutations of valid input: protobuf fields, media containers, raw bytes.

Every function takes the input and a ``random.Random``, and returns a mutated copy.
"""

from __future__ import annotations

import contextlib
import math
import random
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

EDGE_INTEGERS = (
    0,
    1,
    -1,
    2,
    25,
    127,
    128,
    255,
    2**15,
    2**16,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
EDGE_FLOATS = (0.0, -0.0, 1e-300, 0.5, 1.0, -1.0, 1e9, 1e300, math.inf, -math.inf, math.nan)
EDGE_STRINGS = (
    "",
    "x",
    "gorggle-mini-1",
    "\0",
    "\u202e\U0001f600",
    "../../etc/passwd",
    "s3://",
    "s3://clips/a?x=y",
    "%00" * 20,
    "a" * 70_000,
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
                spoiled[at : at + 4] = (rng.choice(EDGE_INTEGERS) & 0xFFFFFFFF).to_bytes(
                    4, rng.choice(("big", "little"))
                )
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


def mutate_media(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Mutate a media file by its container's structure, or its bytes."""
    if rng.random() < 0.25 or len(data) < 16:
        return mutate_bytes(data, rng)
    if other and rng.random() < 0.08:
        return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
    spoil: Callable[[bytes, random.Random], bytes] = mutate_bytes
    if data[4:8] in (b"ftyp", b"moov", b"moof", b"mdat", b"free"):
        spoil = mutate_boxes
    elif data[:4] == b"\x1aE\xdf\xa3":
        spoil = mutate_elements
    elif data[:1] == b"G" and data[188:189] in (b"G", b""):
        spoil = mutate_packets
    for _ in range(rng.choice((1, 1, 2, 3))):
        if len(data) > PACKET_BYTES:
            data = spoil(data, rng)
    return data


_CONTAINER_BOXES = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"udta", b"moof", b"traf", b"mvex")
)


def parse_boxes(data: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, int, bytes]]:
    """Return all boxes of an MP4, outer ones first: start, end, type (ISO/IEC 14496-12, 4.2)."""
    found: list[tuple[int, int, bytes]] = []
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        stop = start + size
        if size < 8 or stop > end:
            break
        found.append((start, stop, kind))
        if kind in _CONTAINER_BOXES:
            found += parse_boxes(data, start + 8, stop)
        start = stop
    return found


def mutate_boxes(data: bytes, rng: random.Random) -> bytes:
    """Mutate one box of an MP4; in half of the cases the sizes of the enclosing boxes are corrected."""
    found = parse_boxes(data)
    if not found:
        return mutate_bytes(data, rng)
    # Boxes are equally likely, whatever their size.
    start, stop, kind = rng.choice(found)
    box = data[start:stop]
    match rng.randrange(8):
        case 0:
            changed = b""
        case 1:
            changed = box * rng.choice((2, 3, 30 if len(box) < 2000 else 2))
        case 2:
            changed = struct.pack(">I", rng.choice(EDGE_INTEGERS) & 0xFFFFFFFF) + box[4:]
        case 3:
            changed = (
                box[:4]
                + rng.choice((b"free", b"moov", b"trak", b"cmov", b"avcC", rng.randbytes(4)))
                + box[8:]
            )
        case 4:
            lower, upper, _ = rng.choice(found)
            changed = data[lower:upper]
        case 5 if len(box) > 12:
            at = rng.randrange(8, len(box) - 3)
            changed = box[:at] + struct.pack(">I", rng.choice(EDGE_INTEGERS) & 0xFFFFFFFF) + box[at + 4 :]
        case 6:
            changed = struct.pack(">I4sQ", 1, kind, rng.choice(EDGE_INTEGERS) % 2**64) + box[8:]
        case _:
            changed = box[:8] + mutate_bytes(box[8:], rng)
    return _replace_box(data, found, (start, stop), changed, rng)


def _replace_box(
    data: bytes,
    found: list[tuple[int, int, bytes]],
    where: tuple[int, int],
    changed: bytes,
    rng: random.Random,
) -> bytes:
    start, stop = where
    grown = len(changed) - (stop - start)
    result = bytearray(data[:start] + changed + data[stop:])
    if grown and rng.random() < 0.5:
        for outer, end, _ in found:
            if outer < start and end >= stop:
                struct.pack_into(">I", result, outer, (end - outer + grown) & 0xFFFFFFFF)
    return bytes(result)


def parse_elements(
    data: bytes, start: int = 0, end: int | None = None, depth: int = 0
) -> list[tuple[int, int, int, int]]:
    """Return all EBML elements: start, start of the size, start of the body, end (RFC 8794)."""
    found: list[tuple[int, int, int, int]] = []
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
        size = int.from_bytes(data[size_at:body]) & (1 << 7 * size_length) - 1
        stop = end if size == (1 << 7 * size_length) - 1 else body + size
        if stop > end:
            break
        found.append((start, size_at, body, stop))
        inner = parse_elements(data, body, stop, depth + 1)
        if inner and inner[0][0] == body and max(item[3] for item in inner) == stop:
            found += inner
        start = stop
    return found


def mutate_elements(data: bytes, rng: random.Random) -> bytes:
    """Mutate one element of a WebM or Matroska file: its id, size or body; or remove or repeat it."""
    found = parse_elements(data)
    if not found:
        return mutate_bytes(data, rng)
    start, size_at, body, stop = rng.choice(found)
    match rng.randrange(6):
        case 0:
            return data[:start] + data[stop:]
        case 1:
            return (
                data[:stop]
                + data[start:stop] * rng.choice((1, 2, 20 if stop - start < 2000 else 1))
                + data[stop:]
            )
        case 2:
            lie = rng.choice((b"\xff", b"\x80", b"\x01" + b"\xff" * 7, b"\x08" + rng.randbytes(4), b"\x00"))
            return data[:size_at] + lie + data[body:]
        case 3:
            other = rng.choice(found)
            return data[:start] + data[other[0] : other[1]] + data[size_at:]
        case 4:
            return data[:body] + rng.randbytes(stop - body) + data[stop:] if stop - body < 64 else data[:stop]
        case _:
            return data[:body] + mutate_bytes(data[body:stop], rng) + data[stop:]


def _vint_length(first: int) -> int:
    return 9 - first.bit_length()


PACKET_BYTES = 188


def mutate_packets(data: bytes, rng: random.Random) -> bytes:
    """Remove, repeat, swap, relabel or corrupt packets of an MPEG transport stream (ISO/IEC 13818-1)."""
    packets = [data[at : at + PACKET_BYTES] for at in range(0, len(data), PACKET_BYTES)]
    at = rng.randrange(min(len(packets), rng.choice((4, len(packets)))))
    packet = bytearray(packets[at])
    match rng.randrange(6):
        case 0:
            del packets[at : at + rng.choice((1, 1, 5, 40))]
        case 1:
            packets[at:at] = packets[at : at + 1] * rng.choice((1, 16, 300))
        case 2:
            other = rng.randrange(len(packets))
            packets[at], packets[other] = packets[other], packets[at]
        case 3 if len(packet) > 4:
            packet[1:4] = rng.randbytes(3)
            packets[at] = bytes(packet)
        case 4 if len(packet) > 8:
            packet[3] = 0x30 | packet[3] & 0x0F
            packet[4] = rng.choice((0, 1, 183, 184, 255))
            packets[at] = bytes(packet)
        case _:
            packets[at] = mutate_bytes(packets[at], rng)
    return b"".join(packets)
