"""
The command line of the sandbox: one table, read whole, every problem named with its option and value.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bkscaler.errors import ConfigurationError
from bkscaler.readers import MAX_PORT, dns_label, dns_subdomain, duration, one_of
from bkscaler.readers import port as port_number
from bkscaler.sandbox.backends import Backend, Command, custom_command
from bkscaler.sandbox.cluster import ClusterSettings
from bkscaler.sandbox.pods import FailureMode

MAX_REPLICAS = 100
"""Most replicas to begin with; each is a process of this machine."""

_FAILURES = [mode.value for mode in FailureMode]
_BACKENDS = [backend.value for backend in Backend]


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
    host, colon, number = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", number) or int(number) > MAX_PORT:
        raise ValueError(f"{text!r} is not an address; write it like 127.0.0.1:0")
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host in ("", "localhost") else host)), int(number)
    except ValueError as error:
        raise ValueError(f"{text!r}: {host!r} is not an IP address") from error


def _replicas(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > MAX_REPLICAS:
        raise ValueError(f"{text!r} is not a whole number from 0 to {MAX_REPLICAS}")
    return int(text)


def _path(text: str) -> str:
    if not text:
        raise ValueError("is required: the file to write the kubeconfig to")
    if not os.path.isdir(os.path.dirname(os.path.abspath(text))):
        raise ValueError(f"{text!r}: there is no such directory")
    return text


def _failure(text: str) -> FailureMode | None:
    return FailureMode(one_of(*_FAILURES)(text)) if text else None


def _backend(text: str) -> Backend:
    return Backend(one_of(*_BACKENDS)(text))


def _command(text: str) -> Command | None:
    if not text:
        return None
    try:
        return custom_command(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Option:
    """One option: its default as text (``""``: none), how its text is read, and its help."""

    default: str = ""
    read: Callable[[str], Any]
    help: str


_OPTIONS = {
    "kubeconfig": _Option(read=_path, help="write the kubeconfig for clients to this file (required)"),
    "listen": _Option(
        default="127.0.0.1:0", read=_address, help="IP:port of the API; port 0 takes a free one"
    ),
    "namespace": _Option(default="default", read=dns_label, help="namespace of the StatefulSet"),
    "statefulset": _Option(default="buildkitd", read=dns_subdomain, help="name of the StatefulSet"),
    "replicas": _Option(default="0", read=_replicas, help="its replicas at the start"),
    "container-port": _Option(default="8273", read=port_number, help="port that a pod's builder listens on"),
    "start-delay": _Option(default="2s", read=duration, help="how long a container is being created"),
    "stop-delay": _Option(default="1s", read=duration, help="how long after its deletion a pod gets SIGTERM"),
    "fail": _Option(read=_failure, help=f"let every pod fail: {'|'.join(_FAILURES)}"),
    "backend": _Option(default="auto", read=_backend, help=f"what a pod runs: {'|'.join(_BACKENDS)}"),
    "backend-command": _Option(
        read=_command, help="run this instead; {ip}, {port} and {pod} are replaced in it"
    ),
}


def help_text() -> str:
    """Give what ``--help`` prints."""
    lines = [
        "Usage: python -m bkscaler.sandbox --kubeconfig PATH [options]",
        "",
        "An embedded Kubernetes in one process, whose pods are local processes.",
        "",
    ]
    for name, option in _OPTIONS.items():
        default = f" [default {option.default}]" if option.default else ""
        lines.append(f"  {'--' + name:<18} {option.help}{default}")
    return "\n".join(lines) + "\n"


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Give the text of each option that was named, the last one wins, and what does not fit."""
    texts: dict[str, str] = {}
    problems: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, has_value, value = word.partition("=")
        known = name.startswith("--") and name[2:] in _OPTIONS
        if not name.startswith("-"):
            problems.append(f"{word!r} is not an option and belongs to none")
        elif not has_value and words and (known or not words[0].startswith("-")):
            value, has_value = words.pop(0), "="
        if known and has_value:
            texts[name[2:]] = value
        elif name.startswith("-"):
            problems.append(f"{name}: needs a value" if known else f"{name}: there is no such option")
    return texts, problems


def read_settings(arguments: Sequence[str]) -> SandboxSettings:
    """
    Read the command line; ``--help`` is the caller's business.

    :param arguments: without the program's name.
    :raises ConfigurationError: with one line for each problem.
    """
    texts, problems = _split(arguments)
    values: dict[str, Any] = {}
    for name, option in _OPTIONS.items():
        try:
            values[name] = option.read(texts.get(name, option.default))
        except ValueError as error:
            problems.append(f"--{name}: {error}")
    if problems:
        raise ConfigurationError(*problems)
    return _settings(values)


def _settings(values: dict[str, Any]) -> SandboxSettings:
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
