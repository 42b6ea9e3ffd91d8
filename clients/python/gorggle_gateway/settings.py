"""The gateway's settings, read once at start from the command line, else from ``GORGGLE_GATEWAY_…`` variables."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, CliSettingsSource, NoDecode, SettingsConfigDict


def _split_origins(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.rstrip("/") for part in value.replace(",", " ").split())
    return value


Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_origins)]


class GatewaySettings(BaseSettings):
    """Serve the web page, and live captions for browsers, in front of an inference server.

    Every option can also be set as a variable, such as GORGGLE_GATEWAY_MAX_CONNECTIONS.
    """

    model_config = SettingsConfigDict(
        env_prefix="GORGGLE_GATEWAY_",
        env_ignore_empty=True,
        frozen=True,
        cli_prog_name="gorggle gateway",
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )

    listen: str = Field("127.0.0.1:8080", description="HOST:PORT; port 0 takes a free one")
    server: str = Field("127.0.0.1:50051", description="the inference server, HOST:PORT")
    ca: str = Field("", description="PEM with the inference server's certificate authority; turns TLS on")
    cert: str = Field("", description="PEM with a client certificate for the inference server")
    key: str = Field("", description="PEM with the client certificate's private key")
    server_name: str = Field(
        "", description="name on the inference server's certificate, if it is not its host"
    )
    server_token_file: str = Field("", description="file with the bearer token for the inference server")
    token_file: str = Field(
        "",
        description="names and hashes of the tokens that clients must send (see `gorggle token`); without it, every "
        "client is accepted",
    )
    origins: Origins = Field(
        (), description="other origins whose pages may open live sessions, separated by commas"
    )
    api: str = Field("/api", description="address of the HTTP API for the page; a path means this gateway")
    upstream: str = Field("", description="the HTTP API's address; requests to /api are relayed to it")
    upstream_token_file: str = Field(
        "", description="file with a bearer token for the HTTP API that replaces the caller's"
    )
    connect: Origins = Field(
        (), description="other origins that the page may connect to and play media from, separated by commas"
    )
    max_upload_bytes: int = Field(5 * 2**30, gt=0, description="size of an upload that the page accepts")
    exit_on_stdin_eof: bool = Field(False, description="exit when standard input is closed")

    # Limits on what browsers may use; docs/live.md lists them for users.
    max_connections: int = Field(64, gt=0, description="concurrent live sessions")
    max_connections_per_client: int = Field(
        4, gt=0, description="concurrent live sessions of one client: its token's name, else its address"
    )
    max_message_bytes: int = Field(256 * 1024, gt=0, description="size of one WebSocket message")
    max_waiting_bytes: int = Field(
        2**20,
        gt=0,
        description="media of one session received and not yet relayed; reading pauses at this size",
    )
    max_unacknowledged_bytes: int = Field(
        48 * 2**20, gt=0, description="media that clients are advised to keep for sending again"
    )
    max_retained_bytes: int = Field(
        64 * 2**20, gt=0, description="media of one session kept for another inference server"
    )
    max_session_bytes: int = Field(4 * 2**30, gt=0, description="media of one session")
    max_session_s: float = Field(4 * 3600.0, gt=0, description="duration of one session")
    max_idle_s: float = Field(60.0, gt=0, description="a session without media ends after this time")
    max_start_s: float = Field(
        10.0, gt=0, description="time within which a connection must send its first message"
    )
    max_resume_s: float = Field(
        30.0, gt=0, description="time within which a disconnected client may resume its session"
    )
    max_recover_s: float = Field(
        90.0, gt=0, description="time within which a lost inference server must be replaced"
    )

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise ValueError(f"expected HOST:PORT, such as 127.0.0.1:8080; got {value!r}")
        return value

    @field_validator("origins", "connect")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"(https?|wss?)://[^ ;]*", origin):
                raise ValueError(f"expected an origin such as https://captions.example.org; got {origin!r}")
        return value

    @property
    def host(self) -> str:
        """The address to listen on, without the port."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 is a free one."""
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
        raise SettingsError(f"cannot read the token file {path}: {error}") from error


class SettingsError(ValueError):
    """An invalid setting."""


_METAVARS: Any = {"str": "TEXT", "tuple[str,...]": "TEXT", "int": "N", "float": "SECONDS"}


class _HelpFormatter(argparse.HelpFormatter):
    """Leaves out empty defaults and the names of Python types."""

    def _expand_help(self, action: argparse.Action) -> str:
        return re.sub(r" \(default: (\(\)|False)?\)$", "", super()._expand_help(action))

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        if action.metavar in _METAVARS:
            action.metavar = _METAVARS[action.metavar]
        return super()._metavar_formatter(action, default_metavar)


def load_settings(arguments: list[str] | None = None) -> GatewaySettings:
    """Read the command line and the environment.

    Raises:
        SettingsError: a value is invalid.
    """
    source: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(
        GatewaySettings,
        cli_parse_args=True if arguments is None else arguments,
        formatter_class=_HelpFormatter,
    )
    try:
        return GatewaySettings(_cli_settings_source=source)  # type: ignore[call-arg]
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        )
        raise SettingsError("; ".join(problems)) from error
