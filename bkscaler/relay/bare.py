"""
The least that a splicing relay needs of a transport: a socket that can be lent, closed and reset.

For connections that never had a transport of Twisted's (``frontend.shortcut``): to make one and to close it
is half of what a short connection costs. Imported by ``frontend.shortcut`` and ``relay.stalls``.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure

from bkscaler.relay.leg import Leg, LegOwner

_AT_ONCE = struct.pack("ii", 1, 0)
"""``struct linger`` that has ``close`` send a reset."""
_ABORTED = Failure(ConnectionAborted())


class BareTransport:
    """
    Around a connected TCP socket, which it closes. It neither reads nor writes.

    :param handle: the socket.
    :param leg: told of the end.
    """

    __slots__ = ("_handle", "_leg")

    def __init__(self, handle: socket.socket, leg: Leg) -> None:
        self._handle = handle
        self._leg: Leg | None = leg

    def getHandle(self) -> socket.socket:
        """Give the socket."""
        return self._handle

    def connectionLost(self, reason: Failure) -> None:
        """Close, and tell the leg at once; a second call does nothing."""
        leg, self._leg = self._leg, None
        if leg is not None:
            self._handle.close()
            leg.connectionLost(reason)

    def abortConnection(self) -> None:
        """Reset, and tell the leg at once."""
        if self._leg is not None:
            with suppress(OSError):
                self._handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.connectionLost(_ABORTED)


def bare_leg(handle: socket.socket, owner: LegOwner) -> Leg:
    """
    Make a leg of a connected socket, which a splicing relay may be given.

    :param handle: a TCP socket, non-blocking, its options set.
    :param owner: who hears of it until the relay does.
    """
    leg = Leg(owner)
    leg.transport = BareTransport(handle, leg)
    return leg
