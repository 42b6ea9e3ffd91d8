"""Server addresses, TLS certificates and tokens, tested with real TLS connections."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import gorggle
from gorggle._transport.channel import ConnectionOptions, build_channel_config, is_loopback
from tests.sdk.conftest import ClientAdapter, MakeServer


class CertificateAuthority:
    """A private certificate authority."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Gorggle test authority")])
        self.certificate = self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=0))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, *names: str) -> tuple[bytes, bytes]:
        """Return a certificate for the names and its key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = self._sign(subject, key, x509.BasicConstraints(ca=False, path_length=None), names)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM), key_pem

    def _sign(
        self, subject: x509.Name, key: Any, constraints: x509.BasicConstraints, names: tuple[str, ...] = ()
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(constraints, critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_to_general_name(n) for n in names]), critical=False
            )
        return builder.sign(self.key, hashes.SHA256())


def _to_general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


def server_credentials(
    authority: CertificateAuthority, *names: str, mutual: bool = False
) -> grpc.ServerCredentials:
    certificate, key = authority.issue(*names)
    return grpc.ssl_server_credentials(
        [(key, certificate)], authority.pem if mutual else None, require_client_auth=mutual
    )


def test_a_private_certificate_authority_can_be_used(
    adapter: ClientAdapter, make_server: MakeServer, authority: CertificateAuthority, tmp_path: Path
) -> None:
    service, port = make_server(server_credentials(authority, "127.0.0.1"))
    root = tmp_path / "root.pem"
    root.write_bytes(authority.pem)
    for certificate in (root, str(root), authority.pem):
        settings = {"root_certificates": certificate, "token": "secret"}
        assert len(adapter.transcribe(f"127.0.0.1:{port}", b"media", settings=settings)) == 1
        assert service.metadata["authorization"] == "Bearer secret"


def test_a_certificate_of_another_authority_is_not_trusted(
    adapter: ClientAdapter, make_server: MakeServer, authority: CertificateAuthority
) -> None:
    _, port = make_server(server_credentials(authority, "127.0.0.1"))
    for settings in ({"root_certificates": CertificateAuthority().pem}, {"tls": True}):
        with pytest.raises(gorggle.UnavailableError, match=f"127.0.0.1:{port}"):
            adapter.call(f"127.0.0.1:{port}", "models", settings=settings)


def test_a_certificate_for_another_name_requires_server_name(
    adapter: ClientAdapter, make_server: MakeServer, authority: CertificateAuthority
) -> None:
    _, port = make_server(server_credentials(authority, "gorggle.internal"))
    with pytest.raises(gorggle.UnavailableError):
        adapter.call(f"127.0.0.1:{port}", "models", settings={"root_certificates": authority.pem})
    settings = {"root_certificates": authority.pem, "server_name": "gorggle.internal"}
    assert adapter.call(f"127.0.0.1:{port}", "models", settings=settings)


def test_mutual_tls_requires_a_client_certificate(
    adapter: ClientAdapter, make_server: MakeServer, authority: CertificateAuthority
) -> None:
    _, port = make_server(server_credentials(authority, "127.0.0.1", mutual=True))
    certificate, key = authority.issue("client")
    with pytest.raises(gorggle.UnavailableError):
        adapter.call(f"127.0.0.1:{port}", "models", settings={"root_certificates": authority.pem})
    settings = {"root_certificates": authority.pem, "client_certificate": certificate, "client_key": key}
    assert adapter.call(f"127.0.0.1:{port}", "models", settings=settings)


def test_grpc_channel_credentials_can_be_passed(
    adapter: ClientAdapter, make_server: MakeServer, authority: CertificateAuthority
) -> None:
    _, port = make_server(server_credentials(authority, "127.0.0.1"))
    settings = {"credentials": grpc.ssl_channel_credentials(authority.pem)}
    assert adapter.call(f"127.0.0.1:{port}", "models", settings=settings)


def test_a_token_is_sent_with_every_call_over_loopback(
    adapter: ClientAdapter, make_server: MakeServer
) -> None:
    service, port = make_server()
    adapter.call(f"127.0.0.1:{port}", "recognize", b"media", settings={"token": "secret"})
    assert service.metadata["authorization"] == "Bearer secret"
    assert service.metadata["user-agent"].startswith("gorggle-python/")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "localhost"}, "HOST:PORT"),
        ({"target": ""}, "HOST:PORT"),
        ({"target": "http://localhost:50051"}, "HOST:PORT"),
        ({"target": "localhost:99999"}, "HOST:PORT"),
        ({"target": "gpu:50051", "token": "secret"}, "unencrypted"),
        ({"token": "two words"}, "spaces"),
        ({"token": "line\n"}, "spaces"),
        ({"token": ""}, "empty"),
        ({"root_certificates": "nowhere.pem"}, "cannot read nowhere.pem: no such file"),
        ({"root_certificates": b"no certificate"}, "PEM"),
        ({"client_certificate": b"-----BEGIN"}, "must be used together"),
        ({"client_key": b"-----BEGIN"}, "must be used together"),
        ({"server_name": "gorggle.internal"}, "TLS"),
        (
            {"root_certificates": b"-----BEGIN X", "credentials": grpc.local_channel_credentials()},
            "exclude each other",
        ),
        ({"connect_timeout_s": 0}, "connect_timeout_s is 0"),
        ({"timeout_s": -1}, "timeout_s is -1"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
    ],
)
def test_invalid_settings_are_refused_by_the_constructor(
    adapter: ClientAdapter,
    settings: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gorggle.ConfigurationError, match=message):
        adapter.client_class(**settings)


def test_reprs_do_not_contain_secrets() -> None:
    options = ConnectionOptions(token="very-secret", client_key=b"very-secret")
    client = gorggle.AsyncClient(token="very-secret")
    config = build_channel_config("127.0.0.1:1", ConnectionOptions(token="very-secret"))
    assert "very-secret" not in repr(options) + repr(client) + repr(config)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.1:1", True),
        ("unix:/run/gorggle.sock", True),
        ("10.0.0.1:1", False),
        ("[::]:1", False),
        ("localhost.example.org:1", False),
        ("127.0.0.1.example.org:1", False),
        ("dns://8.8.8.8/localhost:1", False),
        ("xds:localhost:1", False),
    ],
)
def test_loopback_addresses_are_recognized(target: str, expected: bool) -> None:
    assert is_loopback(target) is expected
