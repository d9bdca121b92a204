"""
One bulk transfer without an end: it asks for ``/bulk`` again and again and has the kernel throw it away.

Imported by the program of this room.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

REQUEST = b"GET /bulk HTTP/1.1\r\nHost: bench\r\n\r\n"
AT_ONCE_BYTES = 4 * 1024 * 1024
ASK_EVERY_BYTES = 32 * 1024 * 1024
"""How many bytes are received for each request: fewer than it brings, so that the server never runs dry."""


def pull(client: socket.socket, on_flowing: Callable[[], None]) -> None:
    """
    Receive until the server ends it.

    :param client: connected.
    :param on_flowing: called when the first bytes are there.
    """
    client.sendall(REQUEST * 4)
    buffer = bytearray(AT_ONCE_BYTES)
    received, asked = client.recv_into(buffer), 0
    on_flowing()
    # With MSG_TRUNC the kernel drops what has come instead of copying it: the proxy is to be the slowest.
    while count := client.recv_into(buffer, 0, socket.MSG_TRUNC):
        received += count
        if received - asked >= ASK_EVERY_BYTES:
            asked = received
            client.sendall(REQUEST)
