"""Loads the OpenAPI document."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).with_name("openapi.yaml")


@cache
def load_openapi() -> dict[str, Any]:
    """Return the document; callers must not modify it."""
    document: dict[str, Any] = yaml.safe_load(PATH.read_text("utf-8"))
    return document
