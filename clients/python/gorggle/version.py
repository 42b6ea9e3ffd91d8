"""The version of the installed package."""

from __future__ import annotations

from importlib import metadata


def get_version() -> str:
    """Return a version such as "0.1.0", or "0+unknown" if the package is not installed."""
    try:
        return metadata.version("gorggle")
    except metadata.PackageNotFoundError:
        return "0+unknown"
