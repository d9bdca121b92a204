"""
The TLS side of a cluster: who the API server must prove to be, and the certificate we may show it.

Checked by pyOpenSSL and service-identity. Imported by :mod:`bkscaler.kube.auth`, ``kubeconfig`` and
``client``. It imports nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ClientCertificate:
    """
    A certificate that says who we are, with its key.

    :param certificate: ours.
    :param key: the private key that belongs to it.
    :param chain: certificates of intermediate authorities, sent along.
    """

    certificate: X509
    key: PKey = field(repr=False)
    chain: tuple[X509, ...] = ()


CertificateSource = Callable[[], ClientCertificate | None]
"""Gives the certificate to show in the next handshake, or None for none; asked for each connection."""


def no_certificate() -> ClientCertificate | None:
    """Give none."""
    return None


def certificates_in(pem: bytes) -> list[Certificate]:
    """
    Read every certificate of a PEM bundle; text around them is allowed, as in many bundles.

    :param pem: the bundle.
    :returns: certificates in their order, at least one.
    :raises ValueError: when there is none, or one cannot be read; the message does not quote the data.
    """
    blocks = _PEM_CERTIFICATE.findall(pem)
    if not blocks:
        raise ValueError("holds no PEM certificate")
    try:
        return [Certificate.loadPEM(block + b"\n") for block in blocks]
    except Exception as error:  # pyOpenSSL raises its own class, or cryptography's, by version
        raise ValueError("holds a certificate that cannot be read") from error


def key_in(pem: bytes) -> PKey:
    """
    Read a private key that is not encrypted.

    :raises ValueError: when there is none that can be used; the message does not quote the data.
    """
    try:
        key: Any = load_pem_private_key(pem, password=None)
        return PKey.from_cryptography_key(key)
    except TypeError as error:
        raise ValueError("holds an encrypted key, or one of a kind that TLS does not use") from error
    except Exception as error:  # by version ValueError, UnsupportedAlgorithm, or OpenSSL's own
        raise ValueError("holds no private key that can be read") from error


def client_certificate(certificate_pem: bytes, key_pem: bytes) -> ClientCertificate:
    """
    Put a certificate and its key together.

    :param certificate_pem: ours first, then those of intermediate authorities.
    :param key_pem: the private key, not encrypted.
    :raises ValueError: when either cannot be read, or they do not belong together; nothing is quoted.
    """
    first, *others = (each.original for each in certificates_in(certificate_pem))
    key = key_in(key_pem)
    own: x509.Certificate = first.to_cryptography()
    private: Any = key.to_cryptography_key()
    if own.public_key() != private.public_key():
        raise ValueError("certificate and key do not belong together")
    return ClientCertificate(certificate=first, key=key, chain=tuple(others))


def is_server_name(name: str) -> bool:
    """Tell whether a certificate can be compared with this name or IP address: a handshake would fail."""
    try:
        optionsForClientTLS(name, trustRoot=trustRootFromCertificates([]))
    except ValueError:
        return False
    return True


@implementer(IPolicyForHTTPS)
class ServerIdentity:
    """
    The HTTPS policy of one cluster: which authorities are trusted, which name is expected, who we are.

    :param ca_pem: certificates of the trusted authorities; None trusts the system's.
    :param server_name: name or IP address the certificate must hold; None is the host of the URL, which
        may itself be an IP address. Also sent as SNI when it is a name.
    :param verify: False believes whoever answers.
    :param certificate: asked for ours, for each connection.
    :raises ValueError: when ``ca_pem`` cannot be read.
    """

    def __init__(
        self,
        *,
        ca_pem: bytes | None,
        server_name: str | None = None,
        verify: bool = True,
        certificate: CertificateSource = no_certificate,
    ) -> None:
        self._server_name = server_name
        self._verify = verify
        self._certificate = certificate
        self._trust_root = (
            platformTrust() if ca_pem is None else trustRootFromCertificates(certificates_in(ca_pem))
        )

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """
        Make the TLS side of one connection.

        :param hostname: host of the URL, an IPv6 address with or without brackets.
        :param port: not looked at; one cluster has one identity.
        """
        expected = self._server_name or hostname.decode("ascii").strip("[]")
        ours = self._certificate()
        options: dict[str, Any] = {}
        if ours is not None:
            options = {"privateKey": ours.key, "certificate": ours.certificate}
            options.update({"extraCertChain": list(ours.chain)} if ours.chain else {})
        if not self._verify:
            return _Unverified(expected, CertificateOptions(**options))
        creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(
            expected, trustRoot=self._trust_root, extraCertificateOptions=options
        )
        return creator


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """One connection to a server that need not prove anything."""

    def __init__(self, name: str, options: CertificateOptions) -> None:
        self._name = name
        self._context: SSL.Context = options.getContext()

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Make the TLS object; a name is sent as SNI, an address must not be."""
        connection = SSL.Connection(self._context, None)
        if not (isIPAddress(self._name) or isIPv6Address(self._name)):
            connection.set_tlsext_host_name(self._name.encode("idna"))
        return connection
