"""
Who we are to the API server: tokens, certificates, and the access a pod is given by its cluster.

A credential never appears in a ``repr``, a log line or an error. Its methods are coroutines although a
token needs no waiting, because other kinds (exec plugins) run a program. Imported by ``kube.kubeconfig``
and ``kube.client``; imports row 1 and :mod:`bkscaler.kube.tls`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.logger import Logger

from bkscaler.errors import ConfigurationError
from bkscaler.kube.tls import (
    CertificateSource,
    ClientCertificate,
    certificates_in,
    client_certificate,
    no_certificate,
)

SERVICE_ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the kubelet mounts ``token`` and ``ca.crt``."""

_WHAT_TO_DO = "give --kubeconfig FILE (or KUBECONFIG_PATH), or run bkscaler in a pod with a ServiceAccount"


class Credentials(Protocol):
    """What proves to the API server who asks. Lives as long as the client; several requests share it."""

    async def header(self) -> bytes | None:
        """
        Give the value of the ``Authorization`` header for the next request.

        :returns: the value, or None to ask without one.
        :raises ApiUnreachable: (not ``sent``) when there is nothing to ask with now; only of kinds that run
            a program. Cancelling ends this wait alone.
        """

    async def reread(self) -> None:
        """Forget what was cached, because the server answered 401. Never raises."""


class NoCredentials:
    """Asks without a token: a local ``kubectl proxy``, or client certificates at the TLS level."""

    async def header(self) -> bytes | None:
        """Give None."""
        return None

    async def reread(self) -> None:
        """Do nothing."""


class StaticToken:
    """
    A bearer token that does not change.

    :param token: visible ASCII, not empty (see :func:`token_problem`).
    """

    def __init__(self, token: str) -> None:
        self._header = b"Bearer " + token.encode("ascii")

    def __repr__(self) -> str:
        return "<StaticToken>"

    async def header(self) -> bytes | None:
        """Give the token."""
        return self._header

    async def reread(self) -> None:
        """Do nothing: there is nowhere to read another one from."""


class UserAndPassword:
    """
    HTTP basic authentication, which proxies in front of an API server still ask for.

    :param username: without a colon.
    :param password: any text.
    """

    def __init__(self, username: str, password: str) -> None:
        self._header = b"Basic " + base64.b64encode(f"{username}:{password}".encode())

    def __repr__(self) -> str:
        return "<UserAndPassword>"

    async def header(self) -> bytes | None:
        """Give both, encoded."""
        return self._header

    async def reread(self) -> None:
        """Do nothing: there is nowhere to read others from."""


class TokenFile:
    """
    A bearer token in a file that is replaced before the token expires (the kubelet does so every hour).

    The file is looked at (one ``stat``) for every request and read when it has changed. When it cannot be
    read, or holds no token, the last good token stays in use and that is logged once.

    :param path: the file; it may be a symbolic link, as the kubelet's is.
    :raises ConfigurationError: when there is no usable token now.
    """

    _log = Logger()

    def __init__(self, path: str) -> None:
        self._path = path
        self._complained = False
        self._stamp: tuple[int, int, int] | None = None
        try:
            self._token = self._read()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path}: {_why(error)}") from error

    def __repr__(self) -> str:
        return f"<TokenFile {self._path}>"

    async def header(self) -> bytes | None:
        """Give the token, read again if the file has changed."""
        self._refresh()
        return b"Bearer " + self._token.encode("ascii")

    async def reread(self) -> None:
        """Read the file again even if it seems unchanged."""
        self._stamp = None
        self._refresh()

    def _refresh(self) -> None:
        """Read the file if it has changed; keep the old token when that fails."""
        try:
            if self._stamp != self._look():
                self._token = self._read()
            self._complained = False
        except (OSError, ValueError) as error:
            if not self._complained:
                self._log.warn(
                    "token file {path}: {why}; the last token stays in use", path=self._path, why=_why(error)
                )
            self._complained = True

    def _look(self) -> tuple[int, int, int]:
        """Say what tells one version of the file from the next."""
        status = os.stat(self._path)
        return (status.st_mtime_ns, status.st_ino, status.st_size)

    def _read(self) -> str:
        """Read the token, remembering which version of the file it came from."""
        stamp = self._look()
        with open(self._path, "rb") as file:
            token = file.read().strip().decode("ascii", "replace")
        problem = token_problem(token)
        if problem:
            raise ValueError(problem)
        self._stamp = stamp
        return token


@dataclass(frozen=True, kw_only=True)
class ExecPlugin:
    """
    How to run a program that gives credentials (``exec`` in a kubeconfig).

    :param command: a path, or a name that is looked up in ``PATH``.
    :param args: its arguments; they may hold secrets.
    :param env: variables added to our own; they may hold secrets.
    :param api_version: of the exchange, ``client.authentication.k8s.io/v1`` or ``v1beta1``.
    :param cluster: what it is told of the cluster; None tells it nothing.
    :param install_hint: what a person can do when there is no such program.
    :param where: file and field, for problems.
    """

    command: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_version: str
    cluster: Mapping[str, Any] | None = field(default=None, repr=False)
    install_hint: str = ""
    where: str = ""


class CertificateFiles:
    """
    A client certificate and its key in files, which somebody may replace before they expire.

    They are read for each new connection. When that fails, the last good pair stays in use, and that is
    logged once.

    :param certificate: path of the certificate, intermediate ones after it.
    :param key: path of the private key.
    :raises ConfigurationError: when there is no usable pair now.
    """

    _log = Logger()

    def __init__(self, certificate: str, key: str) -> None:
        self._certificate = certificate
        self._key = key
        self._complained = False
        try:
            self._pair = self._read()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{certificate}, {key}: {_why(error)}") from error

    def __repr__(self) -> str:
        return f"<CertificateFiles {self._certificate}>"

    def __call__(self) -> ClientCertificate:
        """Give the pair for the next connection."""
        try:
            self._pair = self._read()
            self._complained = False
        except (OSError, ValueError) as error:
            if not self._complained:
                self._log.warn(
                    "client certificate {path}: {why}; the last one stays in use",
                    path=self._certificate,
                    why=_why(error),
                )
            self._complained = True
        return self._pair

    def _read(self) -> ClientCertificate:
        with open(self._certificate, "rb") as certificate, open(self._key, "rb") as key:
            return client_certificate(certificate.read(), key.read())


@dataclass(frozen=True, kw_only=True)
class ClusterAccess:
    """
    Where the API server is, how it proves itself, and how we prove ourselves.

    :param server: URL, ``https://host:port`` (``http`` only without credentials), a path allowed, no
        slash at the end.
    :param ca_pem: certificates of the trusted authorities, already checked; None trusts the system's.
    :param credentials: who we are.
    :param tls_server_name: name the certificate must hold, when it is not the URL's host.
    :param verify: False believes whoever answers at the URL.
    :param certificate: gives the client certificate for each new connection.
    :param plugin: a program that gives the credentials, in the place of the two above; run by
        :meth:`bkscaler.kube.client.ApiClient.over_network`.
    :param source: where this was found, for the log.
    """

    server: str
    ca_pem: bytes | None = field(repr=False)
    credentials: Credentials
    tls_server_name: str | None = None
    verify: bool = True
    certificate: CertificateSource = field(default=no_certificate, repr=False)
    plugin: ExecPlugin | None = None
    source: str = ""


def token_problem(token: str) -> str:
    """
    Say what keeps a text from being sent as a bearer token, without quoting it.

    :returns: ``""`` when nothing does.
    """
    if not token:
        return "holds no token"
    return "" if all("!" <= char <= "~" for char in token) else "holds a token with illegal characters"


def in_cluster(environ: Mapping[str, str], mount: str = SERVICE_ACCOUNT_MOUNT) -> ClusterAccess:
    """
    Use the ServiceAccount that the cluster gave to this pod.

    :param environ: environment variables; ``KUBERNETES_SERVICE_HOST`` and ``_PORT`` name the API server.
    :param mount: directory with ``token`` and ``ca.crt``.
    :raises ConfigurationError: outside a cluster, or when the pod has no ServiceAccount token; each
        problem says what to do.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigurationError(
            f"neither in a cluster (KUBERNETES_SERVICE_HOST is not set) nor given a kubeconfig: {_WHAT_TO_DO}"
        )
    if not os.path.exists(os.path.join(mount, "token")):
        raise ConfigurationError(
            f"{mount}/token: there is no ServiceAccount token in this pod; "
            "set automountServiceAccountToken: true, or give --kubeconfig FILE"
        )
    return ClusterAccess(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca_pem=read_ca_file(os.path.join(mount, "ca.crt")),
        credentials=TokenFile(os.path.join(mount, "token")),
        source="the pod's ServiceAccount",
    )


def read_ca_file(path: str, field_name: str = "") -> bytes:
    """
    Read and check a bundle of certificates.

    :param path: PEM file.
    :param field_name: what named the file, for the problem; ``""`` when nothing did.
    :raises ConfigurationError: when it cannot be read or holds no certificate.
    """
    try:
        with open(path, "rb") as file:
            pem = file.read()
        certificates_in(pem)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{field_name}{': ' if field_name else ''}{path}: {_why(error)}") from error
    return pem


def _why(error: OSError | ValueError) -> str:
    """Put an error of reading a file into a user's words."""
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
