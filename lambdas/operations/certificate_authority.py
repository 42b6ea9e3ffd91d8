"""The stack's private certificate authority, for mutual TLS between the server and its clients.

Two authorities may be valid at once. A new one is distributed for ``PROPAGATION_DELAY`` before it signs, so that every
peer trusts it by the time it sees one of its certificates.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = dt.timedelta(days=3 * 365)
AUTHORITY_RENEWAL = dt.timedelta(days=365)
CERTIFICATE_LIFE = dt.timedelta(days=90)
# Secrets are rotated every 30 days, so after 45 all have been.
PROPAGATION_DELAY = dt.timedelta(days=45)
CLOCK_SKEW = dt.timedelta(minutes=5)


@dataclass(frozen=True)
class CertificateAuthority:
    """An authority's certificate and private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def parse(cls, pem: dict[str, str]) -> CertificateAuthority:
        """Load an authority stored by ``pem``."""
        key = serialization.load_pem_private_key(pem["key"].encode(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"the authority's key is a {type(key).__name__}, expected an elliptic curve key")
        return cls(x509.load_pem_x509_certificate(pem["certificate"].encode()), key)

    @property
    def pem(self) -> dict[str, str]:
        """The authority as stored in the secret."""
        return {"certificate": _certificate_pem(self.certificate), "key": _key_pem(self.key)}


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, and the authorities that its owner trusts."""

    ca: str
    certificate: str
    key: str


def create_authority(name: str, now: dt.datetime) -> CertificateAuthority:
    """Create an authority that may sign certificates but no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(certificate, key)


def renew_authorities(
    authorities: Sequence[CertificateAuthority], name: str, now: dt.datetime
) -> list[CertificateAuthority]:
    """Return the valid authorities, newest first: drop expired ones, and add one if the newest is old."""
    valid = [authority for authority in authorities if authority.certificate.not_valid_after_utc > now]
    if not valid or now - valid[0].certificate.not_valid_before_utc > AUTHORITY_RENEWAL:
        return [create_authority(name, now), *valid]
    return valid


def select_signer(authorities: Sequence[CertificateAuthority], now: dt.datetime) -> CertificateAuthority:
    """Return the newest authority that every peer trusts; the oldest if none is old enough."""
    trusted = (
        authority
        for authority in authorities
        if now - authority.certificate.not_valid_before_utc >= PROPAGATION_DELAY
    )
    return next(trusted, authorities[-1])


def issue_identity(
    authorities: Sequence[CertificateAuthority], name: str, *, is_server: bool, now: dt.datetime
) -> Identity:
    """Issue a certificate for a server or client."""
    issuer, key = select_signer(authorities, now), ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + CERTIFICATE_LIFE, issuer.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(_list_subject_names(name, is_server=is_server)), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
        )
        .sign(issuer.key, hashes.SHA256())
    )
    trusted = "".join(_certificate_pem(authority.certificate) for authority in authorities)
    return Identity(trusted, _certificate_pem(certificate), _key_pem(key))


def verify_identity(identity: Identity, now: dt.datetime) -> None:
    """Verify that an identity is consistent.

    Raises:
        ValueError: its certificate does not match its key, its authorities, or the current time.
    """
    certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
    key = serialization.load_pem_private_key(identity.key.encode(), password=None)
    if key.public_key() != certificate.public_key():
        raise ValueError("the certificate does not match its key")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise ValueError(
            f"the certificate is valid from {certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}"
        )
    trusted = x509.load_pem_x509_certificates(identity.ca.encode())
    issuer = next((authority for authority in trusted if _is_signed_by(certificate, authority)), None)
    if issuer is None:
        raise ValueError(f"the certificate is signed by none of its {len(trusted)} authorities")


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError):
        return False
    return True


def _list_subject_names(name: str, *, is_server: bool) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    # The instance checks its own server by loopback.
    return [*names, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if is_server else names


def _certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
