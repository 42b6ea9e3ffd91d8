"""Numbers between JSON and DynamoDB, which knows ``Decimal`` alone: its client refuses floats."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any


def to_dynamodb(value: Any) -> Any:
    """A JSON value with every float as ``Decimal``, to the sixth decimal.

    Raises:
        ValueError: a number that JSON has no form for (NaN, infinity).
    """
    if isinstance(value, bool) or value is None or isinstance(value, str | int | Decimal):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be stored: expected a finite number")
        return Decimal(repr(round(value, 6)))
    if isinstance(value, dict):
        return {str(key): to_dynamodb(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_dynamodb(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return {to_dynamodb(inner) for inner in value}
    raise ValueError(f"a {type(value).__name__} cannot be stored: expected JSON's types")


def from_dynamodb(value: Any) -> Any:
    """An item as JSON's types: whole numbers as ``int``, others as ``float``, sets as sorted lists."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: from_dynamodb(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [from_dynamodb(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(from_dynamodb(inner) for inner in value)
    return value
