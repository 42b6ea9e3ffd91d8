"""Convert a provider's inputs to the AWS API's parameters, and validate them against botocore's service models.

Pulumi's AWS provider and the API use nearly the same names: ``sseAlgorithm`` and ``SSEAlgorithm``. ``convert`` maps such
names and rejects properties without a matching member. ``validate`` is botocore's own validation plus what that leaves
out: enumerations, maxima and patterns.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

# botocore's models of shapes and operations: their classes differ by kind and have no type hints.
Shape = Any
Operation = Any

_NUMBERS = {"integer": int, "long": int, "float": float, "double": float}
_MAX_SAMPLE_DEPTH = 5


class ApiShapeError(ValueError):
    """The API has no such member, or the value has the wrong type."""


@functools.cache
def operation(name: str) -> Operation:
    """Return the model of an operation such as ``s3.CreateBucket``."""
    service, _, method = name.partition(".")
    return botocore.session.get_session().get_service_model(service).operation_model(method)


def convert(shape: Shape, value: Any, where: str = "") -> Any:
    """Convert a value with the provider's names to the names of a shape.

    Raises:
        ApiShapeError: the shape has no member for a property.
    """
    match shape.type_name:
        case "structure":
            return _convert_structure(shape, value, where)
        case "list":
            # The provider's schema has a single value where at most one item is allowed.
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
    result = {}
    for name, each in value.items():
        if each is None:
            continue
        member = find_member(shape, name)
        if member is None:
            raise ApiShapeError(f"{where}.{name} is unknown to the API; it takes {', '.join(shape.members)}")
        result[member] = convert(shape.members[member], each, f"{where}.{name}")
    return result


def find_member(shape: Shape, name: str) -> str | None:
    """Return the member that a provider's property corresponds to, or None."""
    members = {member.lower(): member for member in shape.members}
    name = name.lower()
    variants = (name, name + "s", name.removesuffix("s"), name + "list", re.sub(r"ies$", "y", name))
    return next((members[each] for each in variants if each in members), None)


def _convert_scalar(shape: Shape, value: Any) -> Any:
    kind = shape.type_name
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    if kind in _NUMBERS and isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return _NUMBERS[kind](value)
    if kind == "blob" and isinstance(value, str):
        return value.encode()
    return value


class _StrictValidator(ParamValidator):
    """Adds the checks that botocore leaves to the service."""

    # botocore skips the validation of list items without any of these.
    VALIDATED_METADATA_ATTRS = ParamValidator.VALIDATED_METADATA_ATTRS | {"enum", "max", "pattern"}

    def __init__(self) -> None:
        self.problems: list[str] = []

    def _validate(self, params: Any, shape: Shape, errors: Any, name: str) -> None:
        super()._validate(params, shape, errors, name)  # type: ignore[no-untyped-call]
        if problem := _find_problem(shape, params):
            self.problems.append(f"{name.removeprefix('.')} is {params!r}; {problem}")


def validate(shape: Shape, value: Any) -> list[str]:
    """Return a line for everything that the API would reject in a request."""
    validator = _StrictValidator()
    report: str = validator.validate(value, shape).generate_report()  # type: ignore[no-untyped-call]
    return [*report.splitlines(), *validator.problems]


def _find_problem(shape: Shape, value: Any) -> str:
    kind = shape.type_name
    if kind in _NUMBERS and isinstance(value, bool):
        return "the API takes a number"
    if kind == "string" and isinstance(value, str):
        if shape.enum and value not in shape.enum:
            return f"the API takes {', '.join(shape.enum)}"
        pattern = shape.metadata.get("pattern", "")
        if pattern and not _matches(pattern, value):
            return f"the API takes {pattern}"
    size = value if kind in _NUMBERS else len(value) if isinstance(value, (str, list)) else 0
    maximum = shape.metadata.get("max")
    if maximum is not None and isinstance(size, (int, float)) and size > float(maximum):
        return f"the maximum is {maximum}"
    return ""


def _matches(pattern: str, text: str) -> bool:
    # The models are written for Java, with classes (\p{…}) and flags that Python does not have.
    try:
        return re.search(f"^(?:{pattern})$", text, re.DOTALL) is not None
    except re.error:
        return True


def sample_output(shape: Shape | None, depth: int = 0) -> Any:
    """Return an example of a shape with a value for every member, so that later calls can refer to it."""
    if shape is None or depth > _MAX_SAMPLE_DEPTH:
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
