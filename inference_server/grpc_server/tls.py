"""The server's TLS: certificates and keys that may be renewed while it runs."""

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
    """A certificate chain, its key and the authority of the clients, read again for a handshake after they changed.

    Args:
        certificate: PEM with the server's certificate chain.
        key: PEM with its private key.
        client_ca: PEM; clients must show a certificate signed by it. None: they need none.
    """

    def __init__(self, certificate: SecretSource, key: SecretSource, client_ca: SecretSource | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._versions: list[Hashable] = []

    def create(self) -> grpc.ServerCredentials:
        """What a secure port is opened with.

        Raises:
            InvalidRequestError: a part cannot be read, or key and certificate do not belong together.
        """
        self._versions, current = self._get_versions(), self._read()
        return grpc.dynamic_ssl_server_credentials(
            current,
            self._reload_if_changed,  # type: ignore[arg-type]  # None is allowed, says grpc's documentation: nothing is new
            require_client_authentication=self._client_ca is not None,
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = self._certificate.read(), self._key.read()
        if not _is_key_pair(certificate, key):
            raise InvalidRequestError(
                f"{self._certificate} and {self._key} are no certificate and its private key in PEM"
            )
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=self._client_ca.read() if self._client_ca else None
        )

    def _reload_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the next handshake uses; None: the same as the last one."""
        try:
            versions = self._get_versions()
            if versions == self._versions:
                return None
            renewed = self._read()
        except InvalidRequestError as error:
            # Half a renewal: the other half comes, and the next handshake looks again.
            _log.error("the certificates stay as they were: %s", error)
            return None
        self._versions = versions
        _log.info("the certificates were renewed")
        return renewed

    def _get_versions(self) -> list[Hashable]:
        parts = (self._certificate, self._key, self._client_ca)
        return [part.version() for part in parts if part is not None]


def _is_key_pair(certificate: bytes, key: bytes) -> bool:
    """Whether a TLS library takes the two."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _write_temporary_file(certificate) as chain, _write_temporary_file(key) as private:
        try:
            # Without a password, an encrypted key would be asked for on the terminal.
            context.load_cert_chain(chain, private, password=b"")
        except (ssl.SSLError, OSError):
            return False
    return True


@contextlib.contextmanager
def _write_temporary_file(content: bytes) -> Iterator[str]:
    """A file for a library that reads nothing else; on Linux it is in memory, a key does not touch a disk."""
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
