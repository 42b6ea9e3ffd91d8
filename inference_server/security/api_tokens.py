"""Bearer tokens (RFC 6750), stored as names and SHA-256 hashes: a leaked file does not allow calls.

Several tokens may be valid at once: to rotate one, add the new one, distribute it, and delete the old line. The file or secret
is reloaded when it changes; no restart is needed. ``gorggle token NAME FILE`` creates one.
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

from gorggle_server.errors import GorggleError, InvalidRequestError
from gorggle_server.security.secret_sources import FileSecretSource, SecretSource

TOKEN_BYTES = 32  # random bytes: unguessable, so a plain hash suffices
_TOKEN_LINE = re.compile(r"(?P<name>[\w.@-]{1,64})\s+(?P<hash>[0-9a-f]{64})")

_log = logging.getLogger(__name__)


class TokenStore:
    """The currently valid tokens.

    Raises:
        InvalidRequestError: the source cannot be read, or a line is not a name and a hash.
    """

    def __init__(self, source: SecretSource) -> None:
        self._source = source
        self._version = source.version()
        self._client_names = _read_client_names(source)

    def get_client_name(self, token: str) -> str | None:
        """Return the client name of a token, or None for an unknown token."""
        self._refresh()
        return self._client_names.get(_hash_token(token))

    def _refresh(self) -> None:
        """Reload the tokens if they have changed; on failure keep the previous ones."""
        try:
            version = self._source.version()
            if version != self._version:
                self._client_names, self._version = _read_client_names(self._source), version
        except InvalidRequestError as error:
            _log.error("token file could not be reloaded, keeping the previous tokens: %s", error)


def create_token(name: str, path: Path) -> str:
    """Create a token for a client, append its hash to the file, and return the token, which is stored nowhere else.

    Raises:
        InvalidRequestError: the name is invalid or in use, or the file cannot be written.
    """
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise InvalidRequestError(f"{name!r} is not a valid client name: use letters, digits and . _ @ -")
    if path.exists() and name in _read_client_names(FileSecretSource(path)).values():
        raise InvalidRequestError(
            f"{path} has a token for {name} already: delete its line, or choose another name"
        )
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        with open(path, "a", encoding="ascii", opener=_open_private) as file:
            file.write(f"{name} {_hash_token(token)}\n")
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be written: {error.strerror}") from error
    return token


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``gorggle token NAME FILE``: print a new token once."""
    parser = argparse.ArgumentParser(
        prog="gorggle token",
        description="Create a bearer token for a client of the server: its hash is appended to FILE (for `gorggle serve "
        "--token-file FILE`), the token is printed once and stored nowhere.",
    )
    parser.add_argument("name", metavar="NAME", help="the client's name, for the log")
    parser.add_argument("file", metavar="FILE", type=Path)
    options = parser.parse_args(argv)
    try:
        print(create_token(options.name, options.file))
    except GorggleError as error:
        print(f"gorggle: error: {error}", file=sys.stderr)
        return 1
    return 0


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read_client_names(source: SecretSource) -> dict[str, str]:
    """Return client names by token hash."""
    try:
        lines = source.read().decode().splitlines()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{source} is not a text file: create it with `gorggle token`") from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _TOKEN_LINE.fullmatch(line.strip())
        if match is None:
            # The line may contain a token by mistake: do not repeat it.
            raise InvalidRequestError(
                f"{source}, line {number}: expected a name and the SHA-256 of a token; create lines with `gorggle token`"
            )
        names[match["hash"]] = match["name"]
    return names


if __name__ == "__main__":
    sys.exit(main())
