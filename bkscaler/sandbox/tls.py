"""
The sandbox's own certificates: an authority for one life, and a server certificate for its addresses.

The one place whose chance is the operating system's, as keys must be.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.ssl import CertificateOptions, PrivateCertificate

LIFETIME = timedelta(days=365)
"""How long the certificates are good."""

CLOCK_SKEW = timedelta(hours=1)
"""How far in the past they begin, for clients whose clocks are late."""


@dataclass(frozen=True, kw_only=True)
class ServerIdentity:
    """
    What a server shows and what its clients need.

    :param ca_pem: certificate of the authority, for clients.
    :param server_pem: the server's certificate and its private key; never written to a file.
    """

    ca_pem: bytes
    server_pem: bytes

    def context_factory(self) -> CertificateOptions:
        """Make what a TLS listener needs."""
        options: CertificateOptions = PrivateCertificate.loadPEM(self.server_pem).options()
        return options


_SIGNS_CERTIFICATES = x509.KeyUsage(
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
"""Python 3.13 and newer verify strictly, and want to read what an authority may do."""


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + LIFETIME)


def _alternatives(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName("kubernetes.default.svc")]
    for host in dict.fromkeys((*hosts, "127.0.0.1")):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def make_identity(hosts: Sequence[str], now: datetime) -> ServerIdentity:
    """
    Make an authority and a server certificate signed by it; the authority's key is forgotten.

    :param hosts: addresses and names the server is reached by, beside ``localhost`` and ``127.0.0.1``.
    :param now: wall clock.
    """
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("bkscaler sandbox authority")
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        _builder(_name("bkscaler sandbox"), ca_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_alternatives(hosts), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return ServerIdentity(ca_pem=ca.public_bytes(pem), server_pem=certificate.public_bytes(pem) + key_pem)
