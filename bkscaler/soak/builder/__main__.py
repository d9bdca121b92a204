"""
The builder of a soak, run by the sandbox as its pod: ``python -m bkscaler.soak.builder IP PORT``.

It sends back what it is sent, a half-close included. To who says nothing it speaks HTTP/2, as buildkitd does
to everybody, and answers each call with its body. It ends on SIGTERM, and with the sandbox.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.frontend.sniff import PREFACE
from bkscaler.simulation.calls import Calls

GREETING_S = 0.5
"""When it speaks first; whoever has something to say has said it by then."""
BACKLOG = 4096


@implementer(IHalfCloseableProtocol)
class Served(Protocol):
    """
    One connection.

    :param reactor: for time.
    """

    transport: Any = None

    def __init__(self, reactor: Any) -> None:
        self._first = b""
        self._calls: Calls | None = None
        self._greeting = reactor.callLater(GREETING_S, self._greet)

    def connectionMade(self) -> None:
        """Read no faster than can be written."""
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        """Answer; find out who it is first."""
        if self._calls is not None:
            self._calls.received(data)
        elif not self._greeting.active():
            self.transport.write(data)
        else:
            self._find_out(self._first + data)

    def readConnectionLost(self) -> None:
        """Close behind what is still to be written."""
        if self._greeting.active() and self._first:
            self.transport.write(self._first)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget it."""
        if self._greeting.active():
            self._greeting.cancel()

    def _find_out(self, first: bytes) -> None:
        """Keep the first bytes as long as they may become a preface."""
        self._first = first
        if first.startswith(PREFACE):
            self._greet()
            assert self._calls is not None
            self._calls.received(first)
        elif not PREFACE.startswith(first):
            self._greeting.cancel()
            self.transport.write(first)

    def _greet(self) -> None:
        if self._greeting.active():
            self._greeting.cancel()
        self.transport.unregisterProducer()
        self._calls = Calls(lambda who: None, self.transport)
        if self._first and not self._first.startswith(PREFACE):
            self._calls.received(self._first)


class Services(Factory):
    """
    Makes :class:`Served`.

    :param reactor: for time.
    """

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def buildProtocol(self, addr: object) -> Served:
        """Make one."""
        return Served(self._reactor)


class Parent(Protocol):
    """
    Standard input, which ends with the sandbox.

    :param reactor: stopped then.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End."""
        if self._reactor.running:
            self._reactor.stop()


def serve(ip: str, port: int, reactor: Any) -> None:
    """Serve until it is time to end."""
    StandardIO(Parent(reactor))
    reactor.listenTCP(port, Services(reactor), backlog=BACKLOG, interface=ip)
    reactor.run()


if __name__ == "__main__":
    from twisted.internet import reactor

    serve(sys.argv[1], int(sys.argv[2]), reactor)
