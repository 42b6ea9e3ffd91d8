"""TLS of the server, with certificates that can be renewed while it runs."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import tempfile
from collections.abc import Hashable, Iterator
from pathlib import Path

import grpc

from gorggle_server.errors import InvalidRequestError
from gorggle_server.security.secret_sources import SecretSource

_log = logging.getLogger(__name__)


class ReloadingTlsCredentials:
    """Certificate chain, key and client CA, reloaded for the next handshake after a change.

    Args:
        certificate: PEM with the server's certificate chain.
        key: PEM with its private key.
        client_ca: PEM; clients must present a certificate signed by it. None: no client certificates.
    """

    def __init__(self, certificate: SecretSource, key: SecretSource, client_ca: SecretSource | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._versions: list[Hashable] = []

    def create(self) -> grpc.ServerCredentials:
        """Create the credentials of a secure port.

        Raises:
            InvalidRequestError: a part cannot be read, or key and certificate do not match.
        """
        self._versions, current = self._get_versions(), self._read()
        return grpc.dynamic_ssl_server_credentials(
            current,
            self._reload_if_changed,  # type: ignore[arg-type]  # grpc's documentation allows None: unchanged
            require_client_authentication=self._client_ca is not None,
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = self._certificate.read(), self._key.read()
        if not _is_key_pair(certificate, key):
            raise InvalidRequestError(
                f"{self._certificate} and {self._key} are not a certificate and its private key in PEM"
            )
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=self._client_ca.read() if self._client_ca else None
        )

    def _reload_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the configuration of the next handshake; None: unchanged."""
        try:
            versions = self._get_versions()
            if versions == self._versions:
                return None
            renewed = self._read()
        except InvalidRequestError as error:
            # Possibly half a renewal: the next handshake tries again.
            _log.error("certificates could not be reloaded, keeping the previous ones: %s", error)
            return None
        self._versions = versions
        _log.info("reloaded the certificates")
        return renewed

    def _get_versions(self) -> list[Hashable]:
        parts = (self._certificate, self._key, self._client_ca)
        return [part.version() for part in parts if part is not None]


def _is_key_pair(certificate: bytes, key: bytes) -> bool:
    """Return whether the TLS library accepts certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _write_temporary_file(certificate) as chain, _write_temporary_file(key) as private:
        try:
            # Without a password, OpenSSL would prompt on the terminal for an encrypted key.
            context.load_cert_chain(chain, private, password=b"")
        except (ssl.SSLError, OSError):
            return False
    return True


@contextlib.contextmanager
def _write_temporary_file(content: bytes) -> Iterator[str]:
    """Yield a path with the content, for a library that only reads files. On Linux it is in memory: a key never touches a disk."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("gorggle")
        path = f"/proc/self/fd/{fd}"
    else:
        fd, path = tempfile.mkstemp()
    try:
        os.write(fd, content)
        yield path
    finally:
        os.close(fd)
        if not path.startswith("/proc/"):
            Path(path).unlink()
