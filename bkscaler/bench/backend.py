"""
The server behind all proxies, run by the sandbox as its pod: ``python -m bkscaler.bench.backend KIND IP PORT
DIRECTORY``.

It writes its address into a file, from which the bench learns it, and becomes iperf3 or nginx.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from bkscaler.bench import tools
from bkscaler.bench.peers import MANY, nginx_user
from bkscaler.bench.tools import Tool, Toolbox

BULK_BYTES = 64 * 1024 * 1024
"""What ``/bulk`` is: long enough that its beginning and end cost nothing."""
IPERF3, HTTP, ECHO = "iperf3", "http", "echo"
NEEDS: dict[str, tuple[Tool, ...]] = {IPERF3: (tools.IPERF3,), HTTP: (tools.NGINX,), ECHO: ()}
"""What each kind needs of this machine."""
ADDRESS = "address"
"""Name of the file that holds ``IP:PORT``."""
_PR_SET_PDEATHSIG = 1


def http_configuration(ip: str, port: str, directory: str) -> str:
    """
    Write nginx's configuration: ``/`` answers with two bytes on a kept connection, ``/bulk`` with many.

    Two workers, so that who is given the bulk does not keep everybody else waiting.
    """
    return f"""\
{nginx_user()}
daemon off;
worker_processes 2;
pid {directory}/backend.pid;
error_log stderr crit;
events {{ worker_connections {2 * MANY}; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_header_timeout 1h;
    sendfile on;
    tcp_nodelay on;
    client_body_temp_path {directory};
    proxy_temp_path {directory};
    fastcgi_temp_path {directory};
    uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    server {{
        listen {ip}:{port} backlog=1024 reuseport;
        location = / {{ return 200 "ok"; }}
        location = /bulk {{ root {directory}; }}
    }}
}}
"""


def prepare(kind: str, ip: str, port: str, directory: str, *, box: Toolbox) -> list[str]:
    """
    Write the files of a server.

    :returns: program and arguments.
    :raises LookupError: when the machine does not have it.
    :raises KeyError: for a kind that there is not.
    """
    if kind == ECHO:
        words = [sys.executable, "-m", "bkscaler.sandbox.builder", ip, port]
    elif kind == IPERF3:
        words = [box.path(tools.IPERF3), "--server", "--bind", ip, "--port", port]
    else:
        path = os.path.join(directory, "backend.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(http_configuration(ip, port, directory))
        with open(os.path.join(directory, "bulk"), "wb") as file:
            file.truncate(BULK_BYTES)
        words = [box.path(tools.NGINX), "-p", directory, "-c", path]
    with open(os.path.join(directory, ADDRESS), "w", encoding="utf-8") as file:
        file.write(f"{ip}:{port}")
    return words


def main(arguments: Sequence[str]) -> None:
    """Become the server. It ends when the sandbox does, however that happens."""
    kind, ip, port, directory = arguments
    words = prepare(kind, ip, port, directory, box=Toolbox())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
