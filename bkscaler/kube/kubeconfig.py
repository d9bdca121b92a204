"""
Access to a cluster from a kubeconfig file, as kubectl reads it.

Every problem names the file, the field and the value, and never a token. What is not supported yet
(client certificates, exec plugins, proxies, unverified TLS) is refused by name instead of being skipped,
since going on without it would end in a puzzling 401. Imported by the plugin; imports ``kube.auth``.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from bkscaler.errors import ConfigurationError
from bkscaler.kube.auth import (
    SERVICE_ACCOUNT_MOUNT,
    ClusterAccess,
    Credentials,
    NoCredentials,
    StaticToken,
    TokenFile,
    in_cluster,
    read_ca_file,
    token_problem,
)
from bkscaler.kube.tls import certificates_in

_UNSUPPORTED_USER = (
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "exec",
    "auth-provider",
    "username",
    "password",
    "as",
)
_UNSUPPORTED_CLUSTER = ("insecure-skip-tls-verify", "proxy-url")


def find_access(
    *, kubeconfig: str | None, environ: Mapping[str, str], mount: str = SERVICE_ACCOUNT_MOUNT
) -> ClusterAccess:
    """
    Choose how to reach the cluster: the kubeconfig if one is given, else the pod's ServiceAccount.

    :param kubeconfig: path, or None.
    :param environ: environment variables.
    :param mount: directory of the ServiceAccount.
    :raises ConfigurationError: when neither works; the problems say what to do.
    """
    return in_cluster(environ, mount) if kubeconfig is None else load(kubeconfig)


def load(path: str, context: str | None = None) -> ClusterAccess:
    """
    Read a kubeconfig.

    :param path: the file; other files it names are relative to its directory.
    :param context: name of the context to use; None takes ``current-context``.
    :returns: the access the context describes. Its namespace is not used.
    :raises ConfigurationError: when the file, or what it describes, cannot be used.
    """
    return _Kubeconfig(path, _parse(path)).access(context)


def _parse(path: str) -> dict[str, Any]:
    """Read YAML; its own messages may quote the file, tokens too, so only the place is told."""
    try:
        with open(path, "rb") as file:
            content = yaml.safe_load(file.read())
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ConfigurationError(f"{path}: is not YAML{where}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: is not a kubeconfig: it holds no mapping")
    return content


class _Kubeconfig:
    """One parsed file, and the helpers that name its path in every problem."""

    def __init__(self, path: str, content: dict[str, Any]) -> None:
        self._path = path
        self._content = content

    def access(self, wanted: str | None) -> ClusterAccess:
        """Put together what the context names."""
        name = wanted or self._content.get("current-context")
        if not isinstance(name, str) or not name:
            raise self._wrong(
                "current-context", f"{name!r} names no context; choose one of {self._names('contexts')}"
            )
        context = self._named("contexts", "context", name, "current-context")
        cluster_name = self._text(context, "cluster", f"contexts[{name}].context")
        cluster = self._named("clusters", "cluster", cluster_name, f"contexts[{name}].context.cluster")
        user_name = context.get("user")
        user = self._named("users", "user", user_name, f"contexts[{name}].context.user") if user_name else {}
        credentials = self._credentials(user, f"users[{user_name}].user")
        where = f"clusters[{cluster_name}].cluster"
        self._refuse(cluster, _UNSUPPORTED_CLUSTER, where)
        return ClusterAccess(
            server=self._server(cluster, where, with_token=not isinstance(credentials, NoCredentials)),
            ca_pem=self._ca(cluster, where),
            credentials=credentials,
            tls_server_name=self._text(cluster, "tls-server-name", where, needed=False) or None,
            source=f"{self._path}, context {name}",
        )

    def _wrong(self, field: str, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {field}: {problem}")

    def _names(self, section: str) -> str:
        entries = self._content.get(section)
        names = (
            [str(e["name"]) for e in entries if isinstance(e, dict) and "name" in e]
            if isinstance(entries, list)
            else []
        )
        return ", ".join(names) or f"(there are no {section})"

    def _named(self, section: str, key: str, name: Any, named_by: str) -> dict[str, Any]:
        """Find an entry by name, in a list of ``{name: ..., <key>: {...}}``."""
        entries = self._content.get(section) or []
        if not isinstance(entries, list):
            raise self._wrong(section, "is not a list")
        for entry in entries:
            if isinstance(entry, dict) and entry.get("name") == name:
                value = entry.get(key) or {}
                if not isinstance(value, dict):
                    raise self._wrong(f"{section}[{name}].{key}", "is not a mapping")
                return value
        raise self._wrong(named_by, f"{name!r} is not in {section}, which has {self._names(section)}")

    def _text(
        self, values: dict[str, Any], key: str, where: str, *, needed: bool = True, secret: bool = False
    ) -> str:
        """Read a string; a number where a string belongs is a frequent slip."""
        value = values.get(key)
        if value is None and not needed:
            return ""
        if value is None or (needed and value == ""):
            raise self._wrong(f"{where}.{key}", "is missing")
        if not isinstance(value, str):
            raise self._wrong(f"{where}.{key}", f"{'the value' if secret else repr(value)} is not text")
        return value

    def _refuse(self, values: dict[str, Any], fields: tuple[str, ...], where: str) -> None:
        """Stop at what we cannot do, rather than leave it out."""
        for field in fields:
            if values.get(field):
                raise self._wrong(
                    f"{where}.{field}", "is not supported by bkscaler; use a token or a tokenFile"
                )

    def _server(self, cluster: dict[str, Any], where: str, *, with_token: bool) -> str:
        """Check the URL of the API server."""
        server = self._text(cluster, "server", where)
        url = _split(server)
        if url is None or "@" in url.netloc:
            shown = "the URL" if "@" in server else repr(server)
            raise self._wrong(f"{where}.server", f"{shown} is not like https://host:port")
        if url.scheme == "http" and with_token:
            raise self._wrong(f"{where}.server", f"{server!r}: a token is not sent without TLS; use https")
        return server.rstrip("/")

    def _ca(self, cluster: dict[str, Any], where: str) -> bytes | None:
        """Read the authorities; data wins over a file, as in kubectl."""
        data = self._text(cluster, "certificate-authority-data", where, needed=False)
        if data:
            try:
                pem = base64.b64decode("".join(data.split()), validate=True)
                certificates_in(pem)
            except (binascii.Error, ValueError) as error:
                why = "is not base64" if isinstance(error, binascii.Error) else str(error)
                raise self._wrong(f"{where}.certificate-authority-data", why) from error
            return pem
        name = self._text(cluster, "certificate-authority", where, needed=False)
        return (
            read_ca_file(self._beside(name), f"{self._path}: {where}.certificate-authority") if name else None
        )

    def _credentials(self, user: dict[str, Any], where: str) -> Credentials:
        """Choose the kind of credentials; a token file wins over a token, as in kubectl."""
        self._refuse(user, _UNSUPPORTED_USER, where)
        file = self._text(user, "tokenFile", where, needed=False)
        if file:
            try:
                return TokenFile(self._beside(file))
            except ConfigurationError as error:
                raise self._wrong(f"{where}.tokenFile", str(error)) from error
        token = self._text(user, "token", where, needed=False, secret=True)
        if not token:
            return NoCredentials()
        problem = token_problem(token)
        if problem:
            raise self._wrong(f"{where}.token", problem)
        return StaticToken(token)

    def _beside(self, name: str) -> str:
        """Resolve a path the way kubectl does: relative to the kubeconfig."""
        return os.path.join(os.path.dirname(os.path.abspath(self._path)), name)


def _split(server: str) -> Any:
    """Split a URL; None when it has no scheme, host or valid port of ours."""
    try:
        url = urlsplit(server)
        good = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        return None
    return url if good and not url.query and not url.fragment and server.isascii() else None
