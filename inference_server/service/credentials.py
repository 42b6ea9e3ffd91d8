"""The server's TLS: certificate files that may be renewed while it runs."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

from inference_server.errors import InvalidRequestError

_log = logging.getLogger(__name__)


class CertificateFiles:
    """A certificate chain, its key and the authority of the clients, read again for a handshake after they changed.

    Args:
        certificate: PEM file with the server's certificate chain.
        key: PEM file with its private key.
        client_ca: PEM file; clients must show a certificate signed by it. None: they need none.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._paths = [path for path in (certificate, key, client_ca) if path is not None]
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._versions: list[tuple[int, int, int]] = []

    def credentials(self) -> grpc.ServerCredentials:
        """What a secure port is opened with.

        Raises:
            InvalidRequestError: a file cannot be read.
        """
        try:
            self._versions, current = self._stat(), self._read()
        except OSError as error:
            raise InvalidRequestError(f"{error.filename} cannot be read: {error.strerror}") from error
        return grpc.dynamic_ssl_server_credentials(
            current,
            self._renewed,  # type: ignore[arg-type]  # None is allowed, says grpc's documentation: nothing is new
            require_client_authentication=self._client_ca is not None,
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._certificate.read_bytes())],
            root_certificates=self._client_ca.read_bytes() if self._client_ca else None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the next handshake uses; None: the same as the last one."""
        try:
            versions = self._stat()
            if versions == self._versions:
                return None
            renewed = self._read()
        except OSError as error:
            _log.error("the certificates stay as they were: %s", error)
            return None
        self._versions = versions
        _log.info("the certificates were renewed")
        return renewed

    def _stat(self) -> list[tuple[int, int, int]]:
        found = (path.stat() for path in self._paths)
        return [(status.st_mtime_ns, status.st_size, status.st_ino) for status in found]
