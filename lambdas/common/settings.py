"""Loads the environment into a function's frozen settings dataclass: field ``jobs_table`` is ``JOBS_TABLE``.

Below the handlers nothing reads ``os.environ``. A test compares the fields with ``functions.toml``.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class JobsSettings:
    """Settings of the functions that use the jobs table only."""

    jobs_table: str


@dataclasses.dataclass(frozen=True)
class ResultsSettings:
    """Settings of the functions that use the results bucket only."""

    results_bucket: str


@dataclasses.dataclass(frozen=True)
class JobResultsSettings(JobsSettings, ResultsSettings):
    """Settings of the functions that use both."""


class SettingsError(Exception):
    """An environment variable is missing or invalid: the deployment is wrong."""


def load_settings(settings_class: type[T]) -> T:
    """Load a settings class from the environment.

    Raises:
        SettingsError: a variable is missing, or does not match its field's type.
    """
    types = get_type_hints(settings_class)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings_class):  # type: ignore[arg-type]
        name = field.name.upper()
        text = os.environ.get(name)
        if text is None:
            raise SettingsError(f"the environment variable {name} is not set")
        values[field.name] = _parse_value(name, text, types[field.name])
    return settings_class(**values)


def _parse_value(name: str, text: str, kind: Any) -> Any:
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(
            f"the environment variable {name} is {text!r}: expected {kind.__name__}"
        ) from error
