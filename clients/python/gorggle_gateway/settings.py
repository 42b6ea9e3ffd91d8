"""The gateway's settings, read once from the command line and the environment."""

from __future__ import annotations

import argparse
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENV_PREFIX = "GORGGLE_GATEWAY_"


@dataclass(frozen=True)
class Limits:
    """The most that browsers may ask; ``docs/live.md`` lists them for users.

    Attributes:
        connections: live sessions at once.
        connections_per_client: of one client: its token's name, else its address.
        message_bytes: of one WebSocket message.
        waiting_bytes: media of one session that was taken and not yet relayed; then reading from it pauses.
        unacknowledged_bytes: what a client is told that it may keep for sending again.
        retained_bytes: media of one session kept for another reader, should this one be lost.
        session_bytes: media of one session.
        session_s: length of one session.
        idle_s: a session without media for so long ends.
        start_s: a connection must say what it wants within so long.
        resume_s: a session waits for its lost client for so long.
        recover_s: a session waits for a lost inference server for so long.
    """

    connections: int = 64
    connections_per_client: int = 4
    message_bytes: int = 256 * 1024
    waiting_bytes: int = 1024 * 1024
    unacknowledged_bytes: int = 48 * 1024 * 1024
    retained_bytes: int = 64 * 1024 * 1024
    session_bytes: int = 4 * 1024**3
    session_s: float = 4 * 3600.0
    idle_s: float = 60.0
    start_s: float = 10.0
    resume_s: float = 30.0
    recover_s: float = 90.0


@dataclass(frozen=True)
class GatewaySettings:
    """Where the gateway listens, whom it serves, and where the inference server is.

    Attributes:
        listen: HOST:PORT; port 0 takes a free one.
        server: the inference server's address.
        ca, cert, key, server_name: TLS towards it, as in the SDK; ``ca`` alone turns TLS on.
        server_token_file: holds the bearer token for it.
        token_file: names and hashes of the tokens that clients must show (``gorggle token`` makes them); without
            one, everybody who reaches the port is served.
        origins: pages that may open live sessions, beside the gateway's own ("https://captions.example.org").
        api: address of the HTTP API, for the page; a path is on the gateway itself.
        upstream: the HTTP API's own address; the gateway then answers ``/api`` with what it answers.
        upstream_token_file: holds the token that the API is shown, in the place of the caller's.
        connect: further addresses that the page may talk to and play from: where videos lie.
    """

    listen: str = "127.0.0.1:8080"
    server: str = "127.0.0.1:50051"
    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    server_token_file: str = ""
    token_file: str = ""
    origins: tuple[str, ...] = ()
    api: str = "/api"
    connect: tuple[str, ...] = ()
    upstream: str = ""
    upstream_token_file: str = ""
    max_upload_bytes: int = 5 * 1024**3
    exit_on_stdin_eof: bool = False
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        host, separator, port = self.listen.rpartition(":")
        if not separator or not host or not port.isdecimal() or int(port) > 65_535:
            raise SettingsError(f"listen is {self.listen!r}: expected HOST:PORT, such as 127.0.0.1:8080")
        for origin in (*self.origins, *self.connect):
            if (
                not origin.startswith(("http://", "https://", "ws://", "wss://"))
                or " " in origin
                or ";" in origin
            ):
                raise SettingsError(
                    f"{origin!r} is no origin: expected something like https://captions.example.org"
                )

    @property
    def host(self) -> str:
        """Where it listens, without the port."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port it was told to listen on; 0: a free one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def server_token(self) -> str | None:
        """The bearer token for the inference server."""
        return _read_secret(self.server_token_file)

    @property
    def upstream_token(self) -> str | None:
        """The bearer token for the HTTP API."""
        return _read_secret(self.upstream_token_file)


def _read_secret(path: str) -> str | None:
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the token file {path} cannot be read: {error}") from error


class SettingsError(ValueError):
    """A setting that cannot be; the message says which, and what was expected."""


def load_settings(arguments: list[str] | None = None) -> GatewaySettings:
    """Read options, and for what they leave out the environment (``GORGGLE_GATEWAY_LISTEN``).

    Raises:
        SettingsError: a value that cannot be.
    """
    parser = argparse.ArgumentParser(
        prog="gorggle gateway",
        description="Serve the page, and live captions for browsers, in front of an inference server.",
        epilog="Each option is also a variable of the environment: GORGGLE_GATEWAY_LISTEN, GORGGLE_GATEWAY_MAX_CONNECTIONS…",
    )
    for field in dataclasses.fields(GatewaySettings):
        if field.name not in ("limits", "exit_on_stdin_eof"):
            _add_option(parser, field.name, field.default)
    for field in dataclasses.fields(Limits):
        _add_option(parser, f"max_{field.name}", field.default)
    parser.add_argument(
        "--exit-on-stdin-eof", action="store_true", help="end together with the program that started it"
    )
    given = vars(parser.parse_args(arguments))
    values = {name: value for name, value in given.items() if value is not None}
    limits = {name.removeprefix("max_"): values.pop(name) for name in list(values) if _is_limit(name)}
    return GatewaySettings(**values, limits=Limits(**limits))


def _is_limit(name: str) -> bool:
    return name.removeprefix("max_") in {
        field.name for field in dataclasses.fields(Limits)
    } and name.startswith("max_")


def _add_option(parser: argparse.ArgumentParser, name: str, default: Any) -> None:
    kind = type(default)
    variable = os.environ.get(ENV_PREFIX + name.upper())
    reader = _parse_origins if kind is tuple else _positive_parser(kind) if kind in (int, float) else str
    shown = " ".join(default) if kind is tuple else default
    parser.add_argument(
        f"--{name.replace('_', '-')}",
        type=reader,
        default=None if variable is None else _parse_env(reader, name, variable),
        metavar=kind.__name__.upper() if kind in (int, float) else "TEXT",
        help=f"default: {shown}" if shown != "" else "default: none",
    )


def _parse_env(reader: Any, name: str, text: str) -> Any:
    try:
        return reader(text)
    except ValueError as error:
        raise SettingsError(f"{ENV_PREFIX}{name.upper()} is {text!r}: {error}") from error


def _parse_origins(text: str) -> tuple[str, ...]:
    return tuple(part.rstrip("/") for part in text.replace(",", " ").split())


def _positive_parser(kind: type) -> Any:
    def read(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise ValueError("expected a number above 0")
        return value

    read.__name__ = kind.__name__
    return read
