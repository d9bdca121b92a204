"""
Who we are to the API server: bearer tokens, and the access a pod is given by its cluster.

A credential never appears in a ``repr``, a log line or an error. Its methods are coroutines although a
token needs no waiting, because other kinds (exec plugins) run a program. Imported by ``kube.kubeconfig``
and ``kube.client``; imports row 1 and :mod:`bkscaler.kube.tls`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from twisted.logger import Logger

from bkscaler.errors import ConfigurationError
from bkscaler.kube.tls import certificates_in

SERVICE_ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the kubelet mounts ``token`` and ``ca.crt``."""

_WHAT_TO_DO = "give --kubeconfig FILE (or KUBECONFIG_PATH), or run bkscaler in a pod with a ServiceAccount"


class Credentials(Protocol):
    """What proves to the API server who asks. Lives as long as the client; several requests share it."""

    async def header(self) -> bytes | None:
        """
        Give the value of the ``Authorization`` header for the next request.

        :returns: the value, or None to ask without one. Never raises.
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
class ClusterAccess:
    """
    Where the API server is, how it proves itself, and how we prove ourselves.

    :param server: URL, ``https://host:port`` (``http`` only without credentials), a path allowed, no
        slash at the end.
    :param ca_pem: certificates of the trusted authorities, already checked; None trusts the system's.
    :param credentials: who we are.
    :param tls_server_name: name the certificate must hold, when it is not the URL's host.
    :param source: where this was found, for the log.
    """

    server: str
    ca_pem: bytes | None = field(repr=False)
    credentials: Credentials
    tls_server_name: str | None = None
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
