"""Fits a provider's inputs to the AWS API's own shapes, as botocore describes them.

Pulumi's AWS provider and the API name most things alike: ``sseAlgorithm`` and ``SSEAlgorithm``, ``attributes`` and
``AttributeDefinitions`` apart. ``fitted`` does the first kind by itself and refuses what no member of the shape answers
to. ``faults`` then holds the request against everything that botocore knows of the shape: what is required, types,
enumerations, ranges, patterns. (botocore's own validation does not look at the last three.)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.session

# botocore's models of shapes and operations: their classes differ by kind, and say nothing of types.
Shape = Any
Operation = Any

_NUMBERS: Mapping[str, type] = {"integer": int, "long": int, "float": float, "double": float}


class ApiShapeError(ValueError):
    """The API has no such member, or it takes another type."""


@functools.cache
def operation(name: str) -> Operation:
    """The model of an operation such as ``s3.CreateBucket``."""
    service, _, method = name.partition(".")
    return botocore.session.get_session().get_service_model(service).operation_model(method)


def convert(shape: Shape, value: Any, where: str = "") -> Any:
    """A value in the provider's casing as the shape has it.

    Raises:
        ApiShapeError: something in it has no place in the shape.
    """
    match shape.type_name:
        case "structure":
            return _convert_structure(shape, value, where)
        case "list":
            # What comes once at most is no list in the provider's schema.
            items = value if isinstance(value, list) else [value]
            return [convert(shape.member, each, f"{where}[{index}]") for index, each in enumerate(items)]
        case "map":
            if not isinstance(value, dict):
                raise ApiShapeError(f"{where} is {value!r}; the API takes a map")
            return {key: convert(shape.value, each, f"{where}.{key}") for key, each in value.items()}
    return _convert_scalar(shape, value)


def _convert_structure(shape: Shape, value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise ApiShapeError(f"{where} is {value!r}; the API takes {', '.join(shape.members)}")
    made = {}
    for name, each in value.items():
        if each is None:
            continue
        member = find_member(shape, name)
        if member is None:
            raise ApiShapeError(
                f"{where}.{name} is nothing that the API knows; it takes {', '.join(shape.members)}"
            )
        made[member] = convert(shape.members[member], each, f"{where}.{name}")
    return made


def find_member(shape: Shape, name: str) -> str | None:
    """The member that a provider's property means; None where there is none."""
    known = {member.lower(): member for member in shape.members}
    wanted = name.lower()
    ways = (wanted, wanted + "s", wanted.removesuffix("s"), wanted + "list", re.sub(r"ies$", "y", wanted))
    return next((known[each] for each in ways if each in known), None)


def _convert_scalar(shape: Shape, value: Any) -> Any:
    kind = shape.type_name
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    if kind in _NUMBERS and isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return _NUMBERS[kind](value)
    if kind == "float" or kind == "double":
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if kind == "blob" and isinstance(value, str):
        return value.encode()
    return value


def validate(shape: Shape, value: Any, where: str = "") -> Iterator[str]:
    """Everything about a request that the API would refuse."""
    match shape.type_name:
        case "structure":
            yield from _structure_faults(shape, value, where)
        case "list":
            if not isinstance(value, list):
                yield f"{where} is {value!r}, not a list"
                return
            yield from _size_faults(shape, len(value), where, "items")
            for index, each in enumerate(value):
                yield from validate(shape.member, each, f"{where}[{index}]")
        case "map":
            for key, each in value.items():
                yield from validate(shape.key, key, f"{where}'s key")
                yield from validate(shape.value, each, f"{where}.{key}")
        case "string":
            yield from _text_faults(shape, value, where)
        case "integer" | "long" | "float" | "double" as kind:
            if isinstance(value, bool) or not isinstance(value, (int, _NUMBERS[kind])):
                yield f"{where} is {value!r}, not a number ({kind})"
            else:
                yield from _size_faults(shape, value, where, "")
        case "boolean":
            if not isinstance(value, bool):
                yield f"{where} is {value!r}, not true or false"


def _structure_faults(shape: Shape, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is {value!r}, not a structure"
        return
    for name in shape.required_members:
        if name not in value:
            yield f"{where}.{name} is missing"
    for name, each in value.items():
        if name not in shape.members:
            yield f"{where}.{name} is nothing that the API knows"
        else:
            yield from validate(shape.members[name], each, f"{where}.{name}")


def _text_faults(shape: Shape, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where} is {value!r}, not a text"
        return
    if shape.enum and value not in shape.enum:
        yield f"{where} is {value!r}; the API takes {', '.join(shape.enum)}"
    yield from _size_faults(shape, len(value), where, "characters")
    pattern = shape.metadata.get("pattern")
    if pattern and not _matches(pattern, value):
        yield f"{where} is {value!r}, which is not of the form {pattern}"


def _matches(pattern: str, text: str) -> bool:
    # The models are written for Java: \p{…} classes and a few flags that Python's expressions have no words for.
    try:
        return re.search(f"^(?:{pattern})$", text, re.DOTALL) is not None
    except re.error:
        return True


def _size_faults(shape: Shape, size: float, where: str, unit: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < float(least):
        yield f"{where} has {size} {unit}, and the least is {least}".replace("  ", " ")
    if most is not None and size > float(most):
        yield f"{where} has {size} {unit}, and the most is {most}".replace("  ", " ")


def sample_output(shape: Shape | None, depth: int = 0) -> Any:
    """An answer of a shape, with something in every member: what comes next may refer to it."""
    if shape is None or depth > 5:
        return {}
    match shape.type_name:
        case "structure":
            return {name: sample_output(member, depth + 1) for name, member in shape.members.items()}
        case "list":
            return [sample_output(shape.member, depth + 1)]
        case "map":
            return {}
        case "integer" | "long" | "float" | "double":
            return 1
        case "boolean":
            return True
    if shape.type_name == "string" and shape.enum:
        return shape.enum[0]
    return "sample_0123456789abcdef".ljust(int(shape.metadata.get("min", 0)), "0")
