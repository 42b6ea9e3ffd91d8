"""Strict reading of JSON objects: every error names the document, the place in it, what was there, what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.fusion.errors import FusionInputError

# What an error message shows of a wrong value.
MAX_SHOWN_CHARS = 60

_MISSING = object()


@dataclass(frozen=True, slots=True)
class JsonReader:
    """The fields of one JSON object, and where it is: "the lip reading of window 3: segments[2]"."""

    location: str
    values: Mapping[str, Any]

    @classmethod
    def parse(cls, document: object, location: str) -> JsonReader:
        """Check that a document is an object.

        Raises:
            FusionInputError: it is something else.
        """
        if not isinstance(document, Mapping):
            raise FusionInputError(f"{location} is {format_value(document)}; expected a JSON object")
        return cls(location, document)

    def reject_unknown(self, *names: str) -> None:
        """Refuse fields that have no meaning here: a misspelt optional field would pass unseen."""
        unknown = sorted(str(name) for name in set(self.values) - set(names))
        if unknown:
            raise FusionInputError(
                f"{self.location} has unknown fields: {', '.join(unknown)}; known are {', '.join(names)}"
            )

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def get_text(self, name: str, default: str | None = None) -> str:
        """A string. Lone surrogates, which no file can hold, become U+FFFD."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self.make_error(name, "a string")
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def get_choice(self, name: str, *choices: str, default: str | None = None) -> str:
        """One of some strings."""
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
        """A finite number from ``minimum`` to ``maximum``; where ``allow_string``, as Amazon does it: "4.87" in quotes."""
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
        """A list of objects; an empty one where the field is missing and not required."""
        value = self._value(name, None if required else [])
        if not isinstance(value, list):
            raise self.make_error(name, "a list")
        return [
            JsonReader.parse(item, f"{self.location}: {name}[{index}]") for index, item in enumerate(value)
        ]

    def get_object(self, name: str) -> JsonReader:
        """An object."""
        return JsonReader.parse(self._value(name, None), f"{self.location}: {name}")

    def make_error(self, name: str, expected: str) -> FusionInputError:
        """The error for a field that holds something else than what was expected."""
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
    """A value as an error message shows it: short."""
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
