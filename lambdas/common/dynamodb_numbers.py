"""Conversion of numbers between JSON and DynamoDB, whose client accepts only ``Decimal``."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any


def to_dynamodb(value: Any) -> Any:
    """Convert a JSON value: floats become ``Decimal``, rounded to six decimals.

    Raises:
        ValueError: a number is NaN or infinite, or a type is not supported.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the value cannot be stored: {error}") from error
    return json.loads(text, parse_float=lambda number: Decimal(repr(round(float(number), 6))))


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
