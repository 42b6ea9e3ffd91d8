"""The environment, read into a function's own frozen dataclass: field ``jobs_table`` is the variable ``JOBS_TABLE``.

Below the handlers nothing reads ``os.environ``. A test compares the fields with ``functions.toml``.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


class SettingsError(Exception):
    """A variable of the environment is missing, or is not what its field says: the deployment is wrong."""


def load_settings(settings_class: type[T]) -> T:
    """Read the environment.

    Raises:
        SettingsError: a variable is missing, or cannot be what its field's type says.
    """
    types = get_type_hints(settings_class)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings_class):  # type: ignore[arg-type]
        name = field.name.upper()
        text = os.environ.get(name)
        if text is None:
            raise SettingsError(f"the variable {name} is not set: the deployment must set it")
        values[field.name] = _parse_value(name, text, types[field.name])
    return settings_class(**values)


def list_variables(settings_class: type[Any]) -> set[str]:
    """The names of the variables that a settings class reads."""
    return {field.name.upper() for field in dataclasses.fields(settings_class)}


def _parse_value(name: str, text: str, kind: Any) -> Any:
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(f"the variable {name} is {text!r}: expected {kind.__name__}") from error
