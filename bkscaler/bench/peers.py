"""
The proxies that bkscaler is compared with: how each is started in front of a server. Pure.

Each is set up as somebody would who wants it to be good at this: HAProxy with forced splicing through pipes
of 1 MiB on one thread, nginx with one worker. Imported by ``bench.field``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bkscaler.bench import tools
from bkscaler.bench.tools import Tool, Toolbox

MANY = 4096
"""How many connections a peer is made to take."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """
    Where a proxy stands.

    :param port: where it listens, on 127.0.0.1.
    :param target: the server's ``IP:PORT``.
    :param directory: for its files.
    :param box: what this machine has.
    """

    port: int
    target: str
    directory: str
    box: Toolbox

    def file(self, name: str) -> str:
        """Give the path of one of its files."""
        return os.path.join(self.directory, name)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """
    What starts a proxy.

    :param words: program and arguments.
    :param files: text by path, to be written before.
    """

    words: Sequence[str]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """
    One kind of proxy.

    :param name: for the table and for ``--peers``.
    :param needs: what this machine must have.
    :param launch: says how to start it.
    """

    name: str
    needs: tuple[Tool, ...]
    launch: Callable[[Front], Launch]


def _haproxy(front: Front) -> Launch:
    text = f"""\
global
    nbthread 1
    maxconn {MANY}
    tune.pipesize 1048576
defaults
    mode tcp
    option splice-request
    option splice-response
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{front.port}
    server backend {front.target}
"""
    path = front.file("haproxy.cfg")
    return Launch(words=(front.box.path(tools.HAPROXY), "-db", "-f", path), files={path: text})


def nginx_user() -> str:
    """Give the line that lets nginx's workers read a private directory, where it is needed."""
    return "user root;" if os.geteuid() == 0 else ""


def _nginx(front: Front) -> Launch:
    text = f"""\
load_module {front.box.path(tools.NGINX_STREAM)};
{nginx_user()}
daemon off;
worker_processes 1;
pid {front.file("nginx.pid")};
error_log stderr crit;
events {{ worker_connections {2 * MANY}; }}
stream {{
    server {{
        listen 127.0.0.1:{front.port} backlog=1024;
        proxy_pass {front.target};
        proxy_timeout 1h;
    }}
}}
"""
    path = front.file("nginx-stream.conf")
    return Launch(words=(front.box.path(tools.NGINX), "-p", front.directory, "-c", path), files={path: text})


def _socat(front: Front) -> Launch:
    listen = f"TCP-LISTEN:{front.port},bind=127.0.0.1,fork,reuseaddr,backlog=1024,nodelay"
    return Launch(words=(front.box.path(tools.SOCAT), listen, f"TCP:{front.target},nodelay"))


def _socket_proxyd(front: Front) -> Launch:
    activate = (front.box.path(tools.SOCKET_ACTIVATE), "-l", f"127.0.0.1:{front.port}")
    proxyd = front.box.path(tools.SOCKET_PROXYD)
    return Launch(words=(*activate, proxyd, f"--connections-max={MANY}", front.target))


HAPROXY = Peer(name="haproxy", needs=(tools.HAPROXY,), launch=_haproxy)
NGINX = Peer(name="nginx", needs=(tools.NGINX, tools.NGINX_STREAM), launch=_nginx)
SOCAT = Peer(name="socat", needs=(tools.SOCAT,), launch=_socat)
SOCKET_PROXYD = Peer(
    name="socket-proxyd", needs=(tools.SOCKET_PROXYD, tools.SOCKET_ACTIVATE), launch=_socket_proxyd
)
PEERS = (HAPROXY, NGINX, SOCKET_PROXYD, SOCAT)
BKSCALER = "bkscaler"
DIRECT = "direct"
"""The name of having no proxy at all: what client and server alone do on this machine."""
