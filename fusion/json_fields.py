"""Strict reader of JSON objects: errors name the document, the location, the value found and what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gorggle_fusion.errors import FusionInputError

# Longest value shown in an error message.
MAX_SHOWN_CHARS = 60

_MISSING = object()


@dataclass(frozen=True, slots=True)
class JsonReader:
    """The fields of one JSON object, and its location: "the lip reading window: segments[2]"."""

    location: str
    values: Mapping[str, Any]

    @classmethod
    def parse(cls, document: object, location: str) -> JsonReader:
        """Wrap a document that must be an object.

        Raises:
            FusionInputError: it is not an object.
        """
        if not isinstance(document, Mapping):
            raise FusionInputError(f"{location} is {format_value(document)}; expected a JSON object")
        return cls(location, document)

    def reject_unknown(self, *names: str) -> None:
        """Reject unknown fields, so that a misspelt optional field is noticed."""
        unknown = sorted(str(name) for name in set(self.values) - set(names))
        if unknown:
            raise FusionInputError(
                f"{self.location} has unknown fields: {', '.join(unknown)}; known are {', '.join(names)}"
            )

    def has(self, name: str) -> bool:
        """Return whether the field is present and not null."""
        return self.values.get(name) is not None

    def get_text(self, name: str, default: str | None = None) -> str:
        """Return a string. Lone surrogates, which UTF-8 cannot encode, become U+FFFD."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self.make_error(name, "a string")
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def get_bool(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.make_error(name, "true or false")
        return value

    def get_choice(self, name: str, *choices: str, default: str | None = None) -> str:
        """Return one of the given strings."""
        value = self.get_text(name, default)
        if value not in choices:
            raise self.make_error(name, " or ".join(choices))
        return value

    def get_number(
        self,
        name: str,
        default: float | None = None,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
        allow_string: bool = False,
    ) -> float:
        """Return a finite number in range; with ``allow_string`` also from a string, as Amazon writes "4.87"."""
        value = self._value(name, default)
        expected = _describe_range(minimum, maximum)
        if allow_string and isinstance(value, str):
            value = _try_parse_float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.make_error(name, expected)
        try:
            number = float(value)
        except OverflowError:
            raise self.make_error(name, expected) from None
        if not (math.isfinite(number) and minimum <= number <= maximum):
            raise self.make_error(name, expected)
        return number

    def get_objects(self, name: str, *, required: bool = True) -> list[JsonReader]:
        """Return a list of objects; empty if the field is missing and not required."""
        value = self._value(name, None if required else [])
        if not isinstance(value, list):
            raise self.make_error(name, "a list")
        return [
            JsonReader.parse(item, f"{self.location}: {name}[{index}]") for index, item in enumerate(value)
        ]

    def get_object(self, name: str) -> JsonReader:
        """Return a nested object."""
        return JsonReader.parse(self._value(name, None), f"{self.location}: {name}")

    def make_error(self, name: str, expected: str) -> FusionInputError:
        """Return the error for a field with an unexpected value."""
        return FusionInputError(
            f"{self.location}: {name} is {format_value(self.values.get(name, _MISSING))}; expected {expected}"
        )

    def _value(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise FusionInputError(f"{self.location}: {name} is missing")
        return value


def format_value(value: object) -> str:
    """Return a value as shown in an error message, shortened."""
    if value is _MISSING:
        return "missing"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}… ({type(value).__name__})"


def _try_parse_float(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _describe_range(least: float, most: float) -> str:
    if math.isfinite(least) and math.isfinite(most):
        return f"a number from {least:g} to {most:g}"
    return f"a number from {least:g} up" if math.isfinite(least) else "a number"
