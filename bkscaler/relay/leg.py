"""
One TCP connection of ours, whose events go to whoever owns it at the moment.

Owners change while the connection lives: a client's leg belongs to a held client first and to a relay
later. Swapping the owner keeps each of them free of the other's states. Imported by the rest of this room
and by the frontend.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet import interfaces, protocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.relay import sockets

READ_BYTES = 64 * 1024
"""How much Twisted's transports read at once."""


class LegOwner(Protocol):
    """Who hears of a leg. Calls come from the reactor, one at a time; none may raise."""

    def connected(self, leg: Leg) -> None:
        """Hear that the connection is there; called once, on the first owner."""

    def received(self, leg: Leg, data: bytes) -> None:
        """Take bytes from the peer, never none of them."""

    def finished(self, leg: Leg) -> None:
        """Hear that the peer will send no more (its FIN); it may still read. Called at most once."""

    def lost(self, leg: Leg, orderly: bool) -> None:
        """
        Hear that the connection is gone. Called once, as the last call.

        :param orderly: True when we closed it in the ordinary way, False after a reset, an error or an
            abort.
        """


@implementer(interfaces.IHalfCloseableProtocol)
class Leg(protocol.Protocol):
    """
    One connection, from :meth:`connectionMade` to :meth:`connectionLost`.

    :param owner: who hears of it; may be replaced at any time, between two events.
    :ivar transport: Twisted's transport.
    :ivar has_finished: whether the peer has said that it will send no more.
    :ivar has_written: whether :meth:`write` was used, so that the transport may still have bytes of ours.
    :ivar is_lost: whether the connection is gone.
    """

    transport: Any = None

    def __init__(self, owner: LegOwner) -> None:
        self.owner = owner
        self.has_finished = self.has_written = False
        self.is_lost = False

    def connectionMade(self) -> None:
        """Set the socket up, then tell the owner."""
        sockets.tune(self.transport)
        self.owner.connected(self)

    def write(self, data: bytes) -> None:
        """Send bytes to the peer, before the leg is joined; a relay has its own way."""
        self.has_written = True
        self.transport.write(data)

    def read_at_most(self, limit_bytes: int) -> None:
        """Choose how much one read takes; Twisted's transports read :data:`READ_BYTES`."""
        self.transport.bufferSize = limit_bytes

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on."""
        self.owner.received(self, data)

    def readConnectionLost(self) -> None:
        """Pass on that the peer has finished."""
        self.has_finished = True
        self.owner.finished(self)

    def writeConnectionLost(self) -> None:
        """Do nothing: that our own half-close has been carried out is news to nobody."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass on that the connection is gone."""
        self.is_lost = True
        self.owner.lost(self, orderly=reason.check(ConnectionDone) is not None)


class Parked:
    """The owner of a leg that nobody wants yet: it pauses it, so that the peer's bytes stay in the kernel."""

    def connected(self, leg: Leg) -> None:
        """Pause."""
        leg.transport.pauseProducing()

    def received(self, leg: Leg, data: bytes) -> None:
        """Never called: the leg is paused."""

    def finished(self, leg: Leg) -> None:
        """Never called: the leg is paused."""

    def lost(self, leg: Leg, orderly: bool) -> None:
        """Leave it to the next owner, who looks at ``is_lost``."""


NOBODY = Parked()
"""
The owner of legs that are lost. What is left of a connection must not know each other in a ring, or it waits
for the garbage collector, which comes seldom.
"""
