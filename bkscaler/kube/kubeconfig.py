"""
Access to a cluster from a kubeconfig, as kubectl reads it.

Every problem names the file, the field and the value, and never a secret. What is not supported
(impersonation, proxies, the providers that kubectl has dropped) is refused by name instead of being skipped,
since going on without it would end in a puzzling 401. Imported by the plugin; imports ``kube.kubefile``
and ``kube.auth``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from bkscaler.errors import ConfigurationError
from bkscaler.kube.auth import (
    SERVICE_ACCOUNT_MOUNT,
    CertificateFiles,
    ClusterAccess,
    Credentials,
    ExecPlugin,
    NoCredentials,
    StaticToken,
    TokenFile,
    UserAndPassword,
    in_cluster,
    token_problem,
)
from bkscaler.kube.kubefile import KubeFiles, Part
from bkscaler.kube.tls import (
    CertificateSource,
    certificates_in,
    client_certificate,
    is_server_name,
    no_certificate,
)

EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
"""Versions of the exchange with credential plugins that we speak; they differ only in their names."""
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"
_REFUSED = {
    "auth-provider": "is not supported, and no longer by kubectl; use exec",
    "as": "impersonation is not supported; give the user the rights itself",
    "as-uid": "impersonation is not supported; give the user the rights itself",
    "as-groups": "impersonation is not supported; give the user the rights itself",
    "as-user-extra": "impersonation is not supported; give the user the rights itself",
}
_NO_PROXY = (
    "is not supported: bkscaler connects to the API server directly; remove it, or name a server within reach"
)


def find_access(
    *,
    kubeconfig: str | None,
    environ: Mapping[str, str],
    context: str | None = None,
    mount: str = SERVICE_ACCOUNT_MOUNT,
) -> ClusterAccess:
    """
    Choose how to reach the cluster: the kubeconfig if one is given, else the pod's ServiceAccount.

    :param kubeconfig: path, or several joined by colons, or None.
    :param environ: environment variables.
    :param context: name of the context to use; None takes the current one.
    :param mount: directory of the ServiceAccount.
    :raises ConfigurationError: when neither works; the problems say what to do.
    """
    if kubeconfig is not None:
        return load(kubeconfig, context)
    if context is not None:
        raise ConfigurationError(
            f"--context: {context!r} is a name in a kubeconfig; give --kubeconfig as well"
        )
    return in_cluster(environ, mount)


def load(paths: str, context: str | None = None) -> ClusterAccess:
    """
    Read a kubeconfig.

    :param paths: the file, or several joined by colons; other files that one names are relative to its
        directory.
    :param context: name of the context to use; None takes ``current-context``.
    :returns: the access the context describes. Its namespace is not used.
    :raises ConfigurationError: when a file, or what it describes, cannot be used.
    """
    files = KubeFiles(paths)
    name = context or files.current_context()
    chosen = files.find("contexts", "context", name, "--context" if context else "current-context")
    cluster_name = chosen.text("cluster", needed=True)
    cluster = files.find("clusters", "cluster", cluster_name, f"{chosen.where}.cluster")
    user_name = chosen.text("user")
    user = (
        files.find("users", "user", user_name, f"{chosen.where}.user")
        if user_name
        else Part(file=chosen.file, where="users", values={})
    )
    return _access(cluster, user, f"{chosen.file}, context {name}")


def _access(cluster: Part, user: Part, source: str) -> ClusterAccess:
    """Put together what the context names."""
    for key, why in _REFUSED.items():
        if user.values.get(key):
            raise user.wrong(key, why)
    if cluster.values.get("proxy-url"):
        raise cluster.wrong("proxy-url", _NO_PROXY)
    credentials, certificate = _credentials(user), _certificate(user)
    plugin = _plugin(user, cluster)
    secret = plugin is not None or not isinstance(credentials, NoCredentials)
    ca_pem = _ca(cluster)
    verify = not cluster.flag("insecure-skip-tls-verify")
    if ca_pem is not None and not verify:
        raise cluster.wrong(
            "insecure-skip-tls-verify", "contradicts the certificate authority; remove one of them"
        )
    return ClusterAccess(
        server=_server(cluster, with_secret=secret),
        ca_pem=ca_pem,
        credentials=credentials,
        certificate=certificate,
        plugin=plugin,
        tls_server_name=_server_name(cluster),
        verify=verify,
        source=source,
    )


def _server(cluster: Part, *, with_secret: bool) -> str:
    """Check the URL of the API server."""
    server = cluster.text("server", needed=True)
    url = _split(server)
    if url is None or "@" in url.netloc or not is_server_name(url.hostname):
        shown = "the URL" if "@" in server else repr(server)
        raise cluster.wrong("server", f"{shown} is not like https://host:port")
    if url.scheme == "http" and with_secret:
        raise cluster.wrong("server", f"{server!r}: a token or password is not sent without TLS; use https")
    return server.rstrip("/")


def _server_name(cluster: Part) -> str | None:
    """Check the name that the certificate must hold."""
    name = cluster.text("tls-server-name")
    if name and not is_server_name(name):
        raise cluster.wrong("tls-server-name", f"{name!r} is neither a name of a host nor an IP address")
    return name or None


def _split(server: str) -> Any:
    """Split a URL; None when it has no scheme, host or valid port of ours."""
    try:
        url = urlsplit(server)
        good = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        return None
    return url if good and not url.query and not url.fragment and server.isascii() else None


def _ca(cluster: Part) -> bytes | None:
    """Read the authorities; data wins over a file, as in kubectl."""
    data = cluster.values.get("certificate-authority-data")
    pem = cluster.content("certificate-authority-data", "certificate-authority")
    if not pem and not cluster.text("certificate-authority"):
        return None
    try:
        certificates_in(pem)
    except ValueError as error:
        raise cluster.wrong(f"certificate-authority{'-data' if data else ''}", str(error)) from error
    return pem


def _credentials(user: Part) -> Credentials:
    """Choose the kind of credentials; a token file wins over a token, as in kubectl."""
    file, token = user.path("tokenFile"), user.text("token", secret=True)
    name, password = user.text("username"), user.text("password", secret=True)
    if (name or password) and (token or file):
        raise user.wrong("username", "there is a token as well; only one of them can be used")
    if file:
        try:
            return TokenFile(file)
        except ConfigurationError as error:
            raise user.wrong("tokenFile", str(error)) from error
    if token:
        problem = token_problem(token)
        if problem:
            raise user.wrong("token", problem)
        return StaticToken(token)
    if not name:
        if password:
            raise user.wrong("username", "is missing, and there is a password")
        return NoCredentials()
    if ":" in name:
        raise user.wrong("username", f"{name!r} holds a colon")
    return UserAndPassword(name, password)


def _certificate(user: Part) -> CertificateSource:
    """Read the client certificate; files of their own are read anew for each connection."""
    names = ("client-certificate", "client-key")
    given = [bool(user.text(f"{name}-data", secret=True) or user.text(name)) for name in names]
    if not any(given):
        return no_certificate
    if not all(given):
        missing = names[given.index(False)]
        raise user.wrong(missing, f"is missing, and so is {missing}-data; a certificate needs both")
    paths = [user.path(name) for name in names if not user.values.get(f"{name}-data")]
    if len(paths) == len(names):
        try:
            return CertificateFiles(*paths)
        except ConfigurationError as error:
            raise user.wrong("client-certificate", str(error)) from error
    try:
        ours = client_certificate(*(user.content(f"{name}-data", name) for name in names))
    except ValueError as error:
        raise user.wrong("client-certificate-data", str(error)) from error
    return lambda: ours


def _plugin(user: Part, cluster: Part) -> ExecPlugin | None:
    """Read how to run a program for credentials."""
    if user.values.get("exec") is None:
        return None
    plugin = user.part("exec")
    for key in (
        "token",
        "tokenFile",
        "username",
        "password",
        "client-certificate",
        "client-certificate-data",
    ):
        if user.values.get(key):
            raise user.wrong("exec", f"there is {key} as well; only one of them can be used")
    version = plugin.text("apiVersion", needed=True)
    if version not in EXEC_VERSIONS:
        raise plugin.wrong("apiVersion", f"{version!r} is not one of {', '.join(EXEC_VERSIONS)}")
    _check_mode(plugin, needed=version == EXEC_VERSIONS[0])
    command = plugin.text("command", needed=True)
    return ExecPlugin(
        command=plugin.path("command") if "/" in command else command,
        args=tuple(plugin.texts("args")),
        env={
            each.text("name", needed=True): each.text("value", secret=True) for each in plugin.entries("env")
        },
        api_version=version,
        cluster=_told(cluster) if plugin.flag("provideClusterInfo") else None,
        install_hint=plugin.text("installHint"),
        where=f"{plugin.file}: {plugin.where}",
    )


def _check_mode(plugin: Part, *, needed: bool) -> None:
    """Refuse a program that wants to talk to a person."""
    mode = plugin.text("interactiveMode", needed=needed) or "IfAvailable"
    if mode not in ("Never", "IfAvailable", "Always"):
        raise plugin.wrong("interactiveMode", f"{mode!r} is not one of Never, IfAvailable, Always")
    if mode == "Always":
        raise plugin.wrong("interactiveMode", "'Always' wants a terminal, and bkscaler has none")


def _told(cluster: Part) -> dict[str, Any]:
    """Say what a program is told of the cluster."""
    told: dict[str, Any] = {"server": cluster.text("server")}
    if cluster.text("tls-server-name"):
        told["tls-server-name"] = cluster.text("tls-server-name")
    if cluster.flag("insecure-skip-tls-verify"):
        told["insecure-skip-tls-verify"] = True
    pem = _ca(cluster)
    if pem is not None:
        told["certificate-authority-data"] = base64.b64encode(pem).decode("ascii")
    for each in cluster.entries("extensions"):
        if each.values.get("name") == _EXEC_EXTENSION:
            told["config"] = each.values.get("extension")
    return told
