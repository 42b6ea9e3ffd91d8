"""Options that select a server, and the client of that server or of a temporary local one."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gorggle.errors import ConfigurationError, GorggleError

if TYPE_CHECKING:
    from gorggle.client import Client

TOKEN_ENV_VAR = "GORGGLE_TOKEN"  # noqa: S105 - the variable's name


class UsageError(Exception):
    """The arguments contradict each other."""


class CommandError(Exception):
    """The command cannot continue with any file."""


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select a server."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT[,...]",
        help="server, or several to choose from (default: start a temporary local one)",
    )
    group.add_argument("--tls", action="store_true", help="use TLS with the system's certificate authorities")
    group.add_argument("--ca", type=Path, metavar="PEM", help="use TLS with this certificate authority")
    group.add_argument("--cert", type=Path, metavar="PEM", help="client certificate")
    group.add_argument("--key", type=Path, metavar="PEM", help="private key of --cert")
    group.add_argument(
        "--server-name", metavar="NAME", help="name on the server's certificate, if it differs"
    )
    group.add_argument("--token-file", type=Path, metavar="PATH", help="file with a bearer token")


def check_server_options(options: argparse.Namespace) -> None:
    """Check that the options are consistent.

    Raises:
        UsageError: they are not.
    """
    if options.server is None:
        for name in ("tls", "ca", "cert", "key", "server_name", "token_file"):
            if getattr(options, name):
                raise UsageError(f"--{name.replace('_', '-')} needs --server")
    if (options.cert is None) != (options.key is None):
        raise UsageError("--cert and --key must be used together")


class ServerHandle:
    """The selected server, or a temporary local one that is started on first use.

    ``client()`` returns its client, always the same; it raises CommandError if there is no server.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stack = contextlib.ExitStack()
        self.client = functools.cache(self._connect)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def _connect(self) -> Client:
        try:
            return self._stack.enter_context(self._open_client())
        except GorggleError as error:
            raise CommandError(str(error)) from error

    def _open_client(self) -> Client:
        # gRPC takes long to import; --help does not need it.
        from gorggle.client import Client
        from gorggle.local_server import LocalServer

        options = self._options
        if options.server is None:
            # Not every command selects a model.
            server = LocalServer(getattr(options, "model", None), getattr(options, "audio_model", None))
            return Client(self._stack.enter_context(server).address)
        return Client(
            _parse_addresses(options.server),
            tls=options.tls,
            root_certificates=options.ca,
            client_certificate=options.cert,
            client_key=options.key,
            server_name=options.server_name,
            token=_read_token(options.token_file),
        )


def _parse_addresses(servers: str) -> list[str]:
    """Split comma-separated addresses, except gRPC's own lists of addresses."""
    return [servers] if servers.startswith(("ipv4:", "ipv6:")) else servers.split(",")


def _read_token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN_ENV_VAR) or None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the token file {path}: {error}") from error
