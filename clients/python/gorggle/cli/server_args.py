"""The options that say which server a command uses, and that server: one that is named, or one of the command's own."""

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
    """The command cannot go on, whatever file comes next."""


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Let a command's user name a server, and say how it is spoken to."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT[,...]",
        help="use this server, or whichever of several there is (default: start one for this call)",
    )
    group.add_argument("--tls", action="store_true", help="speak TLS, trusting the system's authorities")
    group.add_argument("--ca", type=Path, metavar="PEM", help="speak TLS, trusting this authority")
    group.add_argument("--cert", type=Path, metavar="PEM", help="show this certificate to the server")
    group.add_argument("--key", type=Path, metavar="PEM", help="the private key of --cert")
    group.add_argument(
        "--server-name", metavar="NAME", help="the name on the server's certificate, if another"
    )
    group.add_argument("--token-file", type=Path, metavar="PATH", help="file with a bearer token")


def check_server_options(options: argparse.Namespace) -> None:
    """Find out what does not go together before anything is started.

    Raises:
        UsageError: an option that needs another one.
    """
    if options.server is None:
        for name in ("tls", "ca", "cert", "key", "server_name", "token_file"):
            if getattr(options, name):
                raise UsageError(f"--{name.replace('_', '-')} goes with --server")
    if (options.cert is None) != (options.key is None):
        raise UsageError("--cert and --key belong together")


class ServerHandle:
    """The server that was named, or one for this call alone, which is started when it is first needed.

    ``client`` gives the one client of it; it raises CommandError where there is none to be had.
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
        # gRPC takes long to import; a command's help is shown without it.
        from gorggle.client import Client
        from gorggle.local_server import LocalServer

        options = self._options
        if options.server is None:
            return Client(self._stack.enter_context(LocalServer()).address)
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
    """HOST:PORT, or several with commas between; gRPC's own names of several addresses stay as they are."""
    return [servers] if servers.startswith(("ipv4:", "ipv6:")) else servers.split(",")


def _read_token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN_ENV_VAR) or None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the token file {path} cannot be read: {error}") from error
