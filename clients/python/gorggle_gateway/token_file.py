"""Tokens of the clients that may open live sessions: names and SHA-256 hashes from ``gorggle token NAME FILE``.

The format is that of the inference server, so both can share a file. It is reloaded when it changes.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

_LINE = re.compile(r"([\w.@-]{1,64})\s+([0-9a-f]{64})")

_log = logging.getLogger(__name__)


class TokenFileError(ValueError):
    """The file cannot be read, or a line is not a name and a hash."""


class TokenStore:
    """The current tokens of a file.

    Raises:
        TokenFileError: the file is invalid.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = _get_file_version(path)
        self._names = _read_tokens(path)

    def find_name(self, token: str) -> str | None:
        """Return the name of a token; None if it is unknown."""
        self._refresh()
        return self._names.get(hashlib.sha256(token.encode()).hexdigest())

    def _refresh(self) -> None:
        """Reload a changed file; keep the previous tokens if it is invalid."""
        try:
            version = _get_file_version(self._path)
            if version != self._version:
                self._names, self._version = _read_tokens(self._path), version
        except TokenFileError as error:
            _log.error("cannot reload the token file, keeping the previous tokens: %s", error)


def _get_file_version(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise TokenFileError(f"cannot read the token file {path}: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_tokens(path: Path) -> dict[str, str]:
    """Return names by hash."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"cannot read the token file {path}: {error}") from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise TokenFileError(f"{path}, line {number}: expected a name and a SHA-256 hash")
        names[match[2]] = match[1]
    return names
