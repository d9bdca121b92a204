"""
The programs of this machine that a bench uses, and what to install where one is missing.

Nothing is built or fetched. Imported by the rest of this room.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

PLACES = (
    "/usr/sbin",
    "/usr/lib/systemd",
    "/lib/systemd",
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
)
"""Where programs and modules are that are not on everybody's PATH."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """
    A file that is needed.

    :param file: its name.
    :param package: Debian's package that has it.
    """

    file: str
    package: str


IPERF3 = Tool(file="iperf3", package="iperf3")
WRK = Tool(file="wrk", package="wrk")
HAPROXY = Tool(file="haproxy", package="haproxy")
NGINX = Tool(file="nginx", package="nginx-light")
NGINX_STREAM = Tool(file="ngx_stream_module.so", package="libnginx-mod-stream")
SOCAT = Tool(file="socat", package="socat")
SOCKET_PROXYD = Tool(file="systemd-socket-proxyd", package="systemd")
SOCKET_ACTIVATE = Tool(file="systemd-socket-activate", package="systemd")
ALL = (IPERF3, WRK, HAPROXY, NGINX, NGINX_STREAM, SOCAT, SOCKET_PROXYD, SOCKET_ACTIVATE)


def locate(file: str) -> str | None:
    """Give the full path of a program or module of this machine; None when it is not there."""
    for place in PLACES:
        if os.path.isfile(path := os.path.join(place, file)):
            return path
    return shutil.which(file)


class Toolbox:
    """
    What this machine has; looked up once.

    :param look: gives the path of a file, or None.
    """

    def __init__(self, look: Callable[[str], str | None] = locate) -> None:
        self._paths = {tool: look(tool.file) for tool in ALL}

    def __repr__(self) -> str:
        return f"<Toolbox without {', '.join(tool.file for tool in self.missing()) or 'a gap'}>"

    def missing(self, wanted: Iterable[Tool] = ALL) -> list[Tool]:
        """List those of the wanted tools that are not there."""
        return [tool for tool in wanted if self._paths[tool] is None]

    def path(self, tool: Tool) -> str:
        """
        Give the path of a tool.

        :raises LookupError: when it is not there.
        """
        path = self._paths[tool]
        if path is None:
            raise LookupError(f"{tool.file} is missing; install Debian's package {tool.package}")
        return path

    def advice(self) -> list[str]:
        """Say what is missing and how to install it; nothing when all is there."""
        gaps = self.missing()
        if not gaps:
            return []
        packages = sorted({tool.package for tool in gaps})
        return [
            f"Not here, and so not measured: {', '.join(tool.file for tool in gaps)}.",
            f"On Debian: apt-get install {' '.join(packages)}",
        ]
