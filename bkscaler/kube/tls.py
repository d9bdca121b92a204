"""
Who the API server must prove to be: its certificate, checked by pyOpenSSL and service-identity.

Imported by :mod:`bkscaler.kube.auth`, ``kubeconfig`` and ``client``. It imports nothing of ours.
"""

from __future__ import annotations

import re

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


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


@implementer(IPolicyForHTTPS)
class ServerIdentity:
    """
    The HTTPS policy of one cluster: which authorities are trusted, and which name is expected.

    :param ca_pem: certificates of the trusted authorities; None trusts the system's.
    :param server_name: name or IP address the certificate must hold; None is the host of the URL, which
        may itself be an IP address. Also sent as SNI when it is a name.
    :raises ValueError: when ``ca_pem`` cannot be read.
    """

    def __init__(self, *, ca_pem: bytes | None, server_name: str | None = None) -> None:
        self._server_name = server_name
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
        creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(expected, trustRoot=self._trust_root)
        return creator
