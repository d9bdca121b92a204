"""
From the text of a setting to its value, one function for each kind. Pure, but for one look at IPv6.

Each raises ValueError with a message that holds the value and says what would be right. Any room may
import it; it imports :mod:`bkscaler.durations`.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Callable

from twisted.internet.endpoints import serverFromString

from bkscaler.durations import parse_duration

MAX_PORT = 65535
BACKLOG = 1024
"""Connections the kernel queues while the reactor is busy; Twisted's default of 50 drops bursts."""
_ENDPOINT_PREFIXES = ("tcp:", "tcp6:", "unix:", "systemd:")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def duration(text: str) -> float:
    """Read a duration of zero or more, to seconds."""
    seconds = parse_duration(text)
    if seconds < 0:
        raise ValueError(f"{text!r} is negative")
    return seconds


def positive_duration(text: str) -> float:
    """Read a duration above zero, to seconds."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} must be more than zero")
    return seconds


def duration_or_off(text: str) -> float:
    """Read a duration above zero, to seconds, or ``off``, which is infinite."""
    return math.inf if text == "off" else positive_duration(text)


DURATIONS = (duration, positive_duration, duration_or_off)
"""The readers whose value is in seconds."""


def positive_int(text: str) -> int:
    """Read a whole number of one or more."""
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def port(text: str) -> int:
    """Read a TCP port that can be dialled, 1 to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= MAX_PORT:
        raise ValueError(f"{text!r} is not a port (1 to {MAX_PORT})")
    return int(text)


def one_of(*words: str) -> Callable[[str], str]:
    """Make a reader that takes one of the given words only."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return read


def dns_label(text: str) -> str:
    """Read a Kubernetes name that is one DNS label (RFC 1123): a namespace, a Service."""
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a Kubernetes name (a-z, 0-9 and -, at most 63 characters)")
    return text


def dns_subdomain(text: str) -> str:
    """Read a Kubernetes name that is a DNS subdomain (RFC 1123): a StatefulSet, a cluster domain."""
    if len(text) > 253 or not all(_LABEL.fullmatch(part) for part in text.split(".")):
        raise ValueError(f"{text!r} is not a Kubernetes name (a-z, 0-9, - and ., at most 253 characters)")
    return text


def optional_text(text: str) -> str | None:
    """Take any text; nothing is None."""
    return text or None


def switch(text: str) -> bool:
    """Read ``yes`` or ``no``."""
    return one_of("yes", "no")(text) == "yes"


def kubeconfig_path(text: str) -> str | None:
    """
    Read a path to a readable file, or several joined by colons, of which one must be there; nothing is None.
    """
    paths = [os.path.expanduser(path) for path in text.split(os.pathsep) if path]
    there = [path for path in paths if os.path.exists(path)]
    try:
        for path in there or paths:
            with open(path, "rb") as file:
                file.read(1)
    except OSError as error:
        raise ValueError(f"cannot read {text!r}: {error.strerror}") from error
    return os.pathsep.join(paths) or None


def listen_address_or_off(text: str) -> str | None:
    """Read an address to listen on, or ``off``, which is None."""
    return None if text == "off" else listen_address(text)


def listen_address(text: str) -> str:
    """
    Read an address to listen on.

    :param text: ``:8080`` (every address, IPv4 and IPv6), ``host:port``, ``[::1]:8080``, or a Twisted
        endpoint description beginning with ``tcp:``, ``tcp6:``, ``unix:`` or ``systemd:``.
    :returns: a Twisted server endpoint description.
    """
    if text.startswith(_ENDPOINT_PREFIXES):
        return _endpoint(text)
    host, colon, number = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", number) or int(number) > MAX_PORT:
        raise ValueError(f"{text!r} is not an address; write it like :8080, 127.0.0.1:8080 or [::1]:8080")
    if not host:
        return _every_interface(int(number))
    if host.startswith("[") and host.endswith("]"):
        return _on_interface("tcp6", host[1:-1], socket.AF_INET6, number, text)
    return _on_interface("tcp", host, socket.AF_INET, number, text)


def _endpoint(text: str) -> str:
    """Check an endpoint description as Twisted will read it; what is wrong may be of any class there."""
    try:
        serverFromString(None, text)  # reading does not touch the reactor
    except Exception as error:
        raise ValueError(f"{text!r} is not a Twisted endpoint: {type(error).__name__}: {error}") from error
    number = re.match(r"tcp6?:(?:port=)?([0-9]+)", text)
    if number and int(number[1]) > MAX_PORT:
        raise ValueError(f"{text!r}: {number[1]} is not a port (0 to {MAX_PORT})")
    return text


def _on_interface(kind: str, host: str, family: socket.AddressFamily, number: str, text: str) -> str:
    """Describe an endpoint on one address; a name is resolved to an address of the family."""
    try:
        address = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)[0][4][0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{text!r}: {host!r} is not an address of this machine's resolver") from error
    interface = str(address).replace(":", r"\:")
    return f"{kind}:{int(number)}:interface={interface}:backlog={BACKLOG}"


def _every_interface(number: int) -> str:
    """Describe one socket for IPv4 and IPv6, or for IPv4 alone where the system has no IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as trial:
            trial.bind(("::", 0))
    except OSError:
        return f"tcp:{number}:backlog={BACKLOG}"
    return rf"tcp6:{number}:interface=\:\::backlog={BACKLOG}"
