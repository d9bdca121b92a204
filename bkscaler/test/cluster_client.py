"""
A plain client of a Kubernetes API for the contract tests: blocking, on the standard library only.

It shares nothing with the product's own client, so that the two cannot be wrong in the same way. No tests
in here.
"""

from __future__ import annotations

import base64
import http.client
import json
import queue
import socket
import ssl
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

ANSWER_LIMIT_S = 20.0
"""Seconds that one answer, or the next line of a watch, may take."""

MERGE = "application/merge-patch+json"
JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer; ``body`` is decoded when it is JSON, else text."""

    code: int
    headers: http.client.HTTPMessage
    body: Any


def _decoded(response: http.client.HTTPResponse) -> Answer:
    data = response.read().decode()
    is_json = (response.getheader("Content-Type") or "").startswith(JSON)
    return Answer(code=response.status, headers=response.headers, body=json.loads(data) if is_json else data)


class Api:
    """
    The API that a kubeconfig's current context leads to.

    :param path: the kubeconfig; a bearer token or a client certificate, as data or as files.
    """

    def __init__(self, path: str) -> None:
        config = yaml.safe_load(Path(path).read_text())
        wanted = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", wanted["cluster"])["cluster"]
        user = _named(config, "users", wanted["user"])["user"]
        self.token = user.get("token", "")
        self.context = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority"))
        self.anonymous = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority"))
        if "client-certificate" in user or "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(_pem(user, "client-certificate") + _pem(user, "client-key"))
                file.flush()
                self.context.load_cert_chain(file.name)
        self.address = urlsplit(cluster["server"])
        self._connection: http.client.HTTPSConnection | None = None

    def dial(self, *, anonymous: bool = False) -> http.client.HTTPSConnection:
        """Make a new connection."""
        context = self.anonymous if anonymous else self.context
        host, port = self.address.hostname or "", self.address.port
        return http.client.HTTPSConnection(host, port, context=context, timeout=ANSWER_LIMIT_S)

    def headers(self, content_type: str | None) -> dict[str, str]:
        """Give the headers of a request with credentials."""
        headers = {"Accept": JSON, "User-Agent": "contract/1"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return {**headers, "Content-Type": content_type} if content_type else headers

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """
        Make one request.

        :param body: an object, text, or None.
        :param more: ``content_type``, ``query`` (a mapping), ``headers`` (instead of the usual ones),
            ``anonymous`` (no client certificate).
        """
        content = body if isinstance(body, str) or body is None else json.dumps(body)
        content_type = more.get("content_type") or (None if body is None else JSON)
        headers = more.get("headers") or self.headers(content_type)
        target = f"{path}?{urlencode(more['query'])}" if more.get("query") else path
        if more.get("anonymous"):
            connection = self.dial(anonymous=True)
            connection.request(method, target, content, headers)
            answer = _decoded(connection.getresponse())
            connection.close()
            return answer
        if self._connection is None:
            self._connection = self.dial()
        self._connection.request(method, target, content, headers)
        return _decoded(self._connection.getresponse())

    def close(self) -> None:
        """Close the connection that requests share."""
        if self._connection is not None:
            self._connection.close()

    def watch(self, path: str, *, lines: queue.Queue[Any] | None = None, **query: Any) -> Watch:
        """Open a watch; it has been answered when this returns."""
        return Watch(self, f"{path}?{urlencode({'watch': '1', **query})}", lines or queue.Queue())


def _named(config: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    return next(entry for entry in config[section] if entry["name"] == name)


def _pem(holder: dict[str, Any], key: str) -> str:
    if f"{key}-data" in holder:
        return base64.b64decode(holder[f"{key}-data"]).decode()
    return Path(holder[key]).read_text()


class Watch:
    """
    One open watch, read by a thread of its own until its end or until :meth:`close`.

    :param lines: where ``(watch, line)`` arrives for every line, and ``(watch, None)`` at a clean end.
    """

    def __init__(self, api: Api, target: str, lines: queue.Queue[Any]) -> None:
        self.lines = lines
        self._closed = False
        self._connection = api.dial()
        self._connection.request("GET", target, headers=api.headers(None))
        self._socket = self._connection.sock
        self.response = self._connection.getresponse()
        self.code = self.response.status
        self._thread = threading.Thread(target=self._read, daemon=True)
        if self.code == 200:
            self._thread.start()

    def _read(self) -> None:
        try:
            for line in self.response:
                self.lines.put((self, json.loads(line)))
            self.lines.put((self, None))
        except Exception as error:
            # The socket is closed under the reader at the end of a test; anything else is a finding.
            if not self._closed:
                self.lines.put((self, error))

    def next(self) -> Any:
        """Wait for the next line; None is the clean end."""
        _, line = self.lines.get(timeout=ANSWER_LIMIT_S)
        if isinstance(line, Exception):
            raise line
        return line

    def rest(self) -> list[Any]:
        """Read to the clean end."""
        found = []
        while (line := self.next()) is not None:
            found.append(line)
        return found

    def close(self) -> None:
        """Leave."""
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(ANSWER_LIMIT_S)
        self._connection.close()
