"""
Options of the sockets on both legs: no delay, keepalive, and a limit on silence. Linux; elsewhere a part.

A peer that has vanished without a word must be found out within a minute, since its connection keeps a
builder awake. Keepalive does it where nothing is in flight; ``TCP_USER_TIMEOUT`` where bytes wait for an
acknowledgement, for which the kernel alone would go on for a quarter of an hour. The latter has a trap,
which :mod:`bkscaler.relay.stalls` disarms. Imported by this room and the frontend.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.interfaces import ITCPTransport

KEEPALIVE_IDLE_S = 30
"""Silence before the first probe."""
KEEPALIVE_INTERVAL_S = 10
"""Time between probes."""
KEEPALIVE_PROBES = 3
"""Unanswered probes until the peer is dead: after 30 + 3 * 10 s."""
USER_TIMEOUT_MS = 60_000
"""Longest time that bytes may wait for an acknowledgement."""

_NAMED = (
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
    ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
    ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
)
_OPTIONS = [(getattr(socket, name), value) for name, value in _NAMED if hasattr(socket, name)]
"""What this system has of it."""
_TCP_INFO = struct.Struct("=3xBB3x16xI")
"""``tcpi_probes``, ``tcpi_backoff`` and ``tcpi_unacked`` of ``struct tcp_info``."""


def tune(transport: Any) -> None:
    """
    Set the options of one connection.

    :param transport: a transport; one that is not TCP (a Unix socket) is left as it is.
    """
    if ITCPTransport.providedBy(transport):
        tune_handle(transport.getHandle())  # type: ignore[attr-defined]  # ISystemHandle, too


def tune_handle(handle: socket.socket) -> None:
    """
    Set the options of one connection, or of those to come.

    :param handle: a TCP socket; one that listens hands its options on to what it accepts (Linux).
    """
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _OPTIONS:
        handle.setsockopt(socket.IPPROTO_TCP, option, value)


def limit_silence(handle: socket.socket, limit_ms: int) -> None:
    """
    Change how long bytes may wait for an acknowledgement.

    :param handle: a TCP socket.
    :param limit_ms: milliseconds; 0 leaves it to the system (about 15 minutes).
    """
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)


def peer_has_closed_its_window(handle: socket.socket) -> bool:
    """
    Tell whether bytes wait only because the peer, being alive, does not read.

    Nothing is unacknowledged then, and the kernel has begun to probe for a window; its probes back off
    like retransmissions do. Source: ``struct tcp_info`` in ``linux/tcp.h``.

    :param handle: a TCP socket.
    """
    info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    unanswered_probes, backoff, unacknowledged = _TCP_INFO.unpack(info)
    return bool(unacknowledged == 0 and backoff > 0 and unanswered_probes <= 1)
