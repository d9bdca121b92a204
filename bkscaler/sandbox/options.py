"""
The command line of the sandbox: read whole, every problem named with its option and value.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.python import usage

from bkscaler.durations import parse_duration
from bkscaler.errors import ConfigurationError
from bkscaler.sandbox.backends import Backend, Command, custom_command
from bkscaler.sandbox.cluster import ClusterSettings
from bkscaler.sandbox.pods import FailureMode

MAX_PORT = 65535
"""Highest TCP port."""

_FAILURES = "|".join(mode.value for mode in FailureMode)
_BACKENDS = "|".join(backend.value for backend in Backend)


class SandboxOptions(usage.Options):
    """Options of ``python -m bkscaler.sandbox``, as text; :func:`read_settings` gives them meaning."""

    synopsis = "Usage: python -m bkscaler.sandbox --kubeconfig PATH [options]"
    longdesc = "An embedded Kubernetes in one process, whose pods are local processes."
    optParameters = [
        ["kubeconfig", None, None, "write the kubeconfig for clients to this file (required)"],
        ["listen", None, "127.0.0.1:0", "host:port of the API; port 0 takes a free one"],
        ["namespace", None, "default", "namespace of the StatefulSet"],
        ["statefulset", None, "buildkitd", "name of the StatefulSet"],
        ["replicas", None, "0", "its replicas at the start"],
        ["container-port", None, "8273", "port that the builder of a pod listens on"],
        ["start-delay", None, "2s", "how long a container is being created"],
        ["stop-delay", None, "1s", "how long after its deletion a pod gets SIGTERM"],
        ["fail", None, None, f"let every pod fail: {_FAILURES}"],
        ["backend", None, "auto", f"what a pod runs: {_BACKENDS}"],
        ["backend-command", None, None, "run this instead; {ip}, {port} and {pod} are replaced"],
    ]


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """
    What a sandbox is told.

    :param kubeconfig: path to write.
    :param host: IP address to listen on.
    :param port: TCP port, 0 for a free one.
    :param cluster: what the cluster begins with.
    :param backend: what a pod runs, unless ``command`` says otherwise.
    :param command: the user's own command, or None.
    """

    kubeconfig: str
    host: str = "127.0.0.1"
    port: int = 0
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    backend: Backend = Backend.AUTO
    command: Command | None = None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or int(port) > MAX_PORT:
        raise ValueError("write it like 127.0.0.1:0")
    host = "127.0.0.1" if host in ("", "localhost") else host
    return str(ipaddress.ip_address(host)), int(port)


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdigit() or not lowest <= int(text) <= highest:
            raise ValueError(f"must be a number from {lowest} to {highest}")
        return int(text)

    return read


def _delay(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < 0:
        raise ValueError("must not be negative")
    return seconds


def _name(text: str) -> str:
    words = text.replace(".", "-").split("-")
    if not text.isascii() or not all(word.isalnum() and word == word.lower() for word in words):
        raise ValueError("must be lower-case letters, digits and dashes")
    return text


def _path(text: str | None) -> str:
    if not text:
        raise ValueError("is required")
    if not os.path.isdir(os.path.dirname(os.path.abspath(text))):
        raise ValueError("its directory does not exist")
    return text


def _one_of(enum: type[Any]) -> Callable[[str | None], Any]:
    def read(text: str | None) -> Any:
        if text is None:
            return None
        values = [member.value for member in enum]
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return enum(text)

    return read


def _command(text: str | None) -> Command | None:
    return None if text is None else custom_command(text)


_READERS: dict[str, Callable[[Any], Any]] = {
    "kubeconfig": _path,
    "listen": _address,
    "namespace": _name,
    "statefulset": _name,
    "replicas": _number(0, 100),
    "container-port": _number(1, MAX_PORT),
    "start-delay": _delay,
    "stop-delay": _delay,
    "fail": _one_of(FailureMode),
    "backend": _one_of(Backend),
    "backend-command": _command,
}


def _read_values(options: SandboxOptions) -> dict[str, Any]:
    values: dict[str, Any] = {}
    problems = []
    for name, read in _READERS.items():
        try:
            values[name] = read(options[name])
        except ValueError as error:
            shown = "" if options[name] is None else f" {options[name]!r}"
            problems.append(f"--{name}{shown}: {error}")
    if problems:
        raise ConfigurationError(*problems)
    return values


def read_settings(arguments: Sequence[str]) -> SandboxSettings:
    """
    Read the command line.

    :param arguments: without the program's name.
    :raises ConfigurationError: with one line for each problem.
    :raises SystemExit: after ``--help``.
    """
    options = SandboxOptions()  # type: ignore[no-untyped-call]  # not annotated by Twisted
    try:
        options.parseOptions(list(arguments))  # type: ignore[no-untyped-call]
    except usage.UsageError as error:
        raise ConfigurationError(str(error)) from error
    values = _read_values(options)
    host, port = values["listen"]
    cluster = ClusterSettings(
        namespace=values["namespace"],
        statefulset=values["statefulset"],
        replicas=values["replicas"],
        container_port=values["container-port"],
        start_delay_s=values["start-delay"],
        stop_delay_s=values["stop-delay"],
        failure=values["fail"],
    )
    return SandboxSettings(
        kubeconfig=values["kubeconfig"],
        host=host,
        port=port,
        cluster=cluster,
        backend=values["backend"],
        command=values["backend-command"],
    )
