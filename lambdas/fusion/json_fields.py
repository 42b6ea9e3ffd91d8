"""Strict reading of JSON objects: every error names the document, the place in it, what was there, what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.fusion.errors import FusionInputError

# What an error message shows of a wrong value.
SHOWN_CHARS = 60

_MISSING = object()


@dataclass(frozen=True, slots=True)
class JsonReader:
    """The fields of one JSON object, and where it is: "the lip reading of window 3: segments[2]"."""

    where: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, document: object, where: str) -> JsonReader:
        """Check that a document is an object.

        Raises:
            FusionInputError: it is something else.
        """
        if not isinstance(document, Mapping):
            raise FusionInputError(f"{where} is {shown(document)}; expected a JSON object")
        return cls(where, document)

    def only(self, *names: str) -> None:
        """Refuse fields that have no meaning here: a misspelt optional field would pass unseen."""
        unknown = sorted(str(name) for name in set(self.values) - set(names))
        if unknown:
            raise FusionInputError(
                f"{self.where} has unknown fields: {', '.join(unknown)}; known are {', '.join(names)}"
            )

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A string. Lone surrogates, which no file can hold, become U+FFFD."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def choice(self, name: str, *choices: str, default: str | None = None) -> str:
        """One of some strings."""
        value = self.text(name, default)
        if value not in choices:
            raise self.wrong(name, " or ".join(choices))
        return value

    def number(
        self,
        name: str,
        default: float | None = None,
        *,
        least: float = -math.inf,
        most: float = math.inf,
        written: bool = False,
    ) -> float:
        """A finite number from ``least`` to ``most``; where ``written``, as Amazon does it: "4.87" in quotes."""
        value = self._value(name, default)
        expected = _expected_number(least, most)
        if written and isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, expected)
        try:
            number = float(value)
        except OverflowError:
            raise self.wrong(name, expected) from None
        if not (math.isfinite(number) and least <= number <= most):
            raise self.wrong(name, expected)
        return number

    def objects(self, name: str, *, required: bool = True) -> list[JsonReader]:
        """A list of objects; an empty one where the field is missing and not required."""
        value = self._value(name, None if required else [])
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return [JsonReader.of(item, f"{self.where}: {name}[{index}]") for index, item in enumerate(value)]

    def inner(self, name: str) -> JsonReader:
        """An object."""
        return JsonReader.of(self._value(name, None), f"{self.where}: {name}")

    def wrong(self, name: str, expected: str) -> FusionInputError:
        """The error for a field that holds something else than what was expected."""
        return FusionInputError(
            f"{self.where}: {name} is {shown(self.values.get(name, _MISSING))}; expected {expected}"
        )

    def _value(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise FusionInputError(f"{self.where}: {name} is missing")
        return value


def shown(value: object) -> str:
    """A value as an error message shows it: short."""
    if value is _MISSING:
        return "missing"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}… ({type(value).__name__})"


def _parsed(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _expected_number(least: float, most: float) -> str:
    if math.isfinite(least) and math.isfinite(most):
        return f"a number from {least:g} to {most:g}"
    return f"a number from {least:g} up" if math.isfinite(least) else "a number"
