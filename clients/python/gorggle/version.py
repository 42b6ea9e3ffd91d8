"""The version of the installed package."""

from __future__ import annotations

from importlib import metadata


def get_version() -> str:
    """Such as "0.1.0"; "0+unknown" where the package is used from a folder without being installed."""
    try:
        return metadata.version("gorggle")
    except metadata.PackageNotFoundError:
        return "0+unknown"
