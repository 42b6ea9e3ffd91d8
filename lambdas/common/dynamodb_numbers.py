"""Conversion of numbers between JSON and DynamoDB, whose client accepts only ``Decimal``."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any


def to_dynamodb(value: Any) -> Any:
    """Convert a JSON value: floats become ``Decimal``, rounded to six decimals.

    Raises:
        ValueError: a number is NaN or infinite, or a type is not supported.
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
    """Convert an item to JSON types: integers to ``int``, other numbers to ``float``, sets to sorted lists."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: from_dynamodb(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [from_dynamodb(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(from_dynamodb(inner) for inner in value)
    return value
