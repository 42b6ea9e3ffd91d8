"""Bearer tokens (RFC 6750): a file of names and SHA-256 hashes, so that who reads the file cannot call the server.

Several tokens may hold at once: to renew one, add the new one, hand it out, and delete the old line. The file is read
again when it changes; no restart is needed. ``gorggle token NAME FILE`` makes one.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from inference_server.errors import GorggleError, InvalidRequestError

TOKEN_BYTES = 32  # of randomness: none can be guessed, so a plain hash suffices
_LINE = re.compile(r"(?P<name>[\w.@-]{1,64})\s+(?P<hash>[0-9a-f]{64})")

_log = logging.getLogger(__name__)


class TokenFile:
    """The tokens that hold now.

    Raises:
        InvalidRequestError: the file cannot be read, or a line is not a name and a hash.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = _version(path)
        self._names = _read(path)

    def name_of(self, token: str) -> str | None:
        """Whose token this is; None where it is nobody's."""
        self._refresh()
        return self._names.get(_hash(token))

    def _refresh(self) -> None:
        """Read the file anew when it has changed; a file that cannot be used leaves the tokens as they were."""
        try:
            version = _version(self._path)
            if version != self._version:
                self._names, self._version = _read(self._path), version
        except InvalidRequestError as error:
            _log.error("the tokens stay as they were: %s", error)


def new_token(name: str, path: Path) -> str:
    """Make a token for a client, add its hash to the file, and return it: it is kept nowhere else.

    Raises:
        InvalidRequestError: the name is not one, is taken, or the file cannot be written.
    """
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise InvalidRequestError(f"{name!r} is no name for a client: use letters, digits and . _ @ -")
    if path.exists() and name in _read(path).values():
        raise InvalidRequestError(
            f"{path} has a token for {name} already: delete its line, or choose another name"
        )
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        with open(path, "a", encoding="ascii", opener=_private) as file:
            file.write(f"{name} {_hash(token)}\n")
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be written: {error.strerror}") from error
    return token


def main(arguments: Sequence[str] | None = None) -> int:
    """``gorggle token NAME FILE``: print a new token once."""
    parser = argparse.ArgumentParser(
        prog="gorggle token",
        description="Make a bearer token for a client of the server: its hash is added to FILE (for `gorggle serve "
        "--token-file FILE`), the token itself is printed once and kept nowhere.",
    )
    parser.add_argument("name", metavar="NAME", help="the client's name, for the log")
    parser.add_argument("file", metavar="FILE", type=Path)
    options = parser.parse_args(arguments)
    try:
        print(new_token(options.name, options.file))
    except GorggleError as error:
        print(f"gorggle: error: {error}", file=sys.stderr)
        return 1
    return 0


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _version(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidRequestError(f"the token file {path} cannot be read: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> dict[str, str]:
    """From hashes to names."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the token file {path} cannot be read: {error}") from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            # The line itself may hold a token by mistake: it is not repeated.
            raise InvalidRequestError(
                f"{path}, line {number}: expected a name and the SHA-256 of a token; make lines with `gorggle token`"
            )
        names[match["hash"]] = match["name"]
    return names


if __name__ == "__main__":
    sys.exit(main())
