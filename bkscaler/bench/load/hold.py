"""
Many connections, each joined to its server by one small request.

Imported by the programs of this room.
"""

from __future__ import annotations

import socket

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
"""What every small request is; an echo answers it as well."""
LIMIT_S = 30.0
"""How long one answer may take."""
ANSWER_BYTES = 65536


def join(address: tuple[str, int], count: int) -> list[socket.socket]:
    """
    Connect so many, and have each one answered, so that it is joined.

    :raises OSError: when one is refused, or closed instead of answered.
    """
    return [_join_one(address) for _ in range(count)]


def _join_one(address: tuple[str, int]) -> socket.socket:
    client = socket.create_connection(address, LIMIT_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(REQUEST)
    if not client.recv(ANSWER_BYTES):
        raise ConnectionError(f"{address[0]}:{address[1]} has closed a connection")
    return client
