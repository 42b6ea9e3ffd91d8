"""Configuration of the channel to a server: address, certificates, token, limits."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from gorggle.errors import ConfigurationError
from gorggle.version import get_version

DEFAULT_TARGET = "127.0.0.1:50051"
CONNECT_TIMEOUT_S = 10.0
Certificate: TypeAlias = "str | Path | bytes"
"""A PEM file's path, or its bytes."""
Metadata: TypeAlias = tuple[tuple[str, str], ...]

# The face boxes of a long clip can exceed gRPC's default of 4 MiB.
MAX_RESPONSE_BYTES = 64 * 2**20
# The server permits a ping every 20 s; a dead connection is detected after interval + timeout.
KEEPALIVE_INTERVAL_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000
MAX_BACKOFF_MS = 2_000

_ADDRESS = re.compile(r"(\[[^\]\s]+\]|[^\[\]:/\s]+):(\d{1,5})")
_SCHEMES = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "xds:")


@dataclass(frozen=True)
class ChannelConfig:
    """Parameters of a channel; ``metadata`` is sent with every call."""

    target: str
    credentials: grpc.ChannelCredentials | None = field(repr=False)
    options: tuple[tuple[str, str | int], ...] = field(repr=False)
    metadata: Metadata = field(repr=False)

    def create_channel(self, module: Any) -> Any:
        """Create a channel of ``module``, which is ``grpc`` or ``grpc.aio``."""
        if self.credentials is None:
            return module.insecure_channel(self.target, self.options)
        return module.secure_channel(self.target, self.credentials, self.options)


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """Connection settings; ``Client`` explains them."""

    tls: bool = False
    root_certificates: Certificate | None = None
    client_certificate: Certificate | None = None
    client_key: Certificate | None = field(default=None, repr=False)
    server_name: str | None = None
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    connect_timeout_s: float = CONNECT_TIMEOUT_S


def build_channel_config(target: str, options: ConnectionOptions) -> ChannelConfig:
    """Validate the settings and read the certificates.

    Raises:
        ConfigurationError: an invalid address, unreadable or incomplete certificates, or a token that would be sent
            unencrypted.
    """
    _check_target(target)
    credentials = _build_credentials(options)
    if options.token is not None:
        _check_token(options.token, target, is_secure=credentials is not None)
    return ChannelConfig(
        target=target,
        credentials=credentials,
        options=_build_channel_options(target, options),
        metadata=(("authorization", f"Bearer {options.token}"),) if options.token else (),
    )


def is_loopback(target: str) -> bool:
    """Whether the target is on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = _ADDRESS.fullmatch(re.sub(r"^(dns:(///?)?|ipv4:|ipv6:)", "", target))
    if address is None:
        return False
    host = address[1].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_target(target: str) -> None:
    if target.startswith(_SCHEMES):
        return
    address = _ADDRESS.fullmatch(target)
    if address is None or not 0 < int(address[2]) <= 65_535:
        raise ConfigurationError(f"{target!r} is not an address: use HOST:PORT, such as {DEFAULT_TARGET}")


def _check_token(token: str, target: str, *, is_secure: bool) -> None:
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigurationError(
            "the token is empty or holds spaces or non-ASCII characters: check its source"
        )
    if not is_secure and not is_loopback(target):
        raise ConfigurationError(f"the token would be sent to {target} unencrypted: use TLS")


def _build_credentials(options: ConnectionOptions) -> grpc.ChannelCredentials | None:
    if (options.client_certificate is None) != (options.client_key is None):
        raise ConfigurationError("client_certificate and client_key must be used together")
    pem = [
        _load_pem(certificate)
        for certificate in (options.root_certificates, options.client_key, options.client_certificate)
    ]
    if options.credentials is not None:
        if any(pem):
            raise ConfigurationError("credentials and certificates exclude each other: use one of them")
        return options.credentials
    if options.tls or any(pem):
        return grpc.ssl_channel_credentials(*pem)
    if options.server_name is not None:
        raise ConfigurationError("server_name needs TLS: it is checked against the server's certificate")
    return None


def _load_pem(certificate: Certificate | None) -> bytes | None:
    if certificate is None:
        return None
    name, content = "the certificate or key", certificate
    if not isinstance(content, bytes):
        name = str(certificate)
        try:
            content = Path(content).read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigurationError(f"cannot read {name}: {reason}") from error
    if b"-----BEGIN " not in content:
        raise ConfigurationError(f"{name} is not in PEM format: it must hold a line with -----BEGIN")
    return content


def _build_channel_options(target: str, options: ConnectionOptions) -> tuple[tuple[str, str | int], ...]:
    if not (math.isfinite(options.connect_timeout_s) and options.connect_timeout_s > 0):
        raise ConfigurationError(
            f"connect_timeout_s is {options.connect_timeout_s}: expected a number of seconds above 0"
        )
    connect_ms = max(1, round(options.connect_timeout_s * 1000))
    channel_options: list[tuple[str, str | int]] = [
        ("grpc.primary_user_agent", f"gorggle-python/{get_version()}"),
        # Timeout of a connection attempt; calls fail with the attempt they wait for.
        ("grpc.min_reconnect_backoff_ms", connect_ms),
        ("grpc.dns_ares_query_timeout", connect_ms),
        ("grpc.initial_reconnect_backoff_ms", min(100, connect_ms)),
        ("grpc.max_reconnect_backoff_ms", min(MAX_BACKOFF_MS, connect_ms)),
        # By default, gRPC shares connections, and their failures, among the channels of a process.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ]
    if is_loopback(target):
        # gRPC uses the proxy of http_proxy even for loopback addresses.
        channel_options.append(("grpc.enable_http_proxy", 0))
    if options.server_name is not None:
        channel_options.append(("grpc.ssl_target_name_override", options.server_name))
    return tuple(channel_options)
