"""
What a builder in memory says to whom it serves: it echoes what it is sent, and tells whom it serves.

A builder answers an HTTP/2 client through ``h2``, which accepts nothing that the protocol does not allow, and
any other by sending each byte back. To one that says nothing it speaks first, as buildkitd does. So a client
that gets its own bytes back, all of them, in their order, knows that both directions are in order.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.frontend.sniff import PREFACE
from bkscaler.simulation.calls import Calls

GREETING_S = 0.15
"""When a builder speaks first: after the first bytes of whoever has some to send."""
TAG_BYTES = 8
"""A plain client begins with so many bytes that name it; an HTTP/2 client has a header for that."""


class Manner(Enum):
    """How a container that says that it is ready takes connections."""

    SERVES = "serves"
    REFUSES = "refuses"
    """Nobody listens: its port is not open yet, or not any more."""
    LOSES = "loses what it is sent"
    """Dials time out."""
    CLOSES = "closes"
    """Accepts, and closes at once, as a sidecar does whose application is not up."""
    RESETS = "resets"
    SWALLOWS = "swallows"
    """Accepts, and never answers on that connection, as something in between does that has lost its way."""
    FREEZES = "freezes"
    """Accepts, and does nothing until it thaws; so it is with the connections that it has."""


class Services(Factory):
    """
    Makes the connections of a builder.

    :param builder: whose.
    """

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def buildProtocol(self, addr: object) -> Protocol:
        """Serve, or do otherwise."""
        self._builder.runner.on_reached()
        manner = self._builder.manner_now()
        if manner in {Manner.CLOSES, Manner.RESETS}:
            return TurnedAway(manner)
        if manner is Manner.SWALLOWS:
            return Swallowing(self._builder)
        return Served(self._builder)


class TurnedAway(Protocol):
    """A connection that is ended as soon as it is there; whoever was joined to it is not served."""

    transport: Any = None

    def __init__(self, manner: Manner) -> None:
        self._manner = manner

    def connectionMade(self) -> None:
        """End it."""
        self.transport.link.harmed = "turned away"
        if self._manner is Manner.RESETS:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()


class Swallowing(Protocol):
    """A connection that reads and says nothing until the other side ends it; it tells who was swallowed."""

    transport: Any = None

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._first = b""

    def connectionMade(self) -> None:
        """Take note that nobody is served."""
        self.transport.link.harmed = "swallowed"

    def dataReceived(self, data: bytes) -> None:
        """Look who it is."""
        known = len(self._first) >= TAG_BYTES
        self._first += data[:TAG_BYTES]
        if not known and len(self._first) >= TAG_BYTES and not PREFACE.startswith(self._first[:TAG_BYTES]):
            self._builder.runner.on_served(
                self._first[:TAG_BYTES].decode("latin-1"), self._builder, self.transport
            )


@implementer(IHalfCloseableProtocol)
class Served(Protocol):
    """One connection of a builder."""

    transport: Any = None

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._first = b""
        self._frozen = b""
        self._calls: Calls | None = None
        builder.serving[self] = ""

    def connectionMade(self) -> None:
        """Speak first, if need be."""
        self._builder.runner.later(GREETING_S, self._greet)

    def thaw(self) -> None:
        """Go on, after the builder was frozen."""
        data, self._frozen = self._frozen, b""
        if data:
            self._take(data)
        self.transport.resumeProducing()
        self._builder.runner.later(GREETING_S, self._greet)

    def _greet(self) -> None:
        idle = self._calls is None and not self._first and not self._known
        if idle and not self._builder.is_frozen and self in self._builder.serving and self._builder.alive:
            self._calls = Calls(self._serve, self.transport, self._put_off)

    def dataReceived(self, data: bytes) -> None:
        """Answer; find out who it is first. What comes while the builder is frozen waits."""
        if self._builder.is_frozen:
            self._wait_with(data)
        else:
            self._take(data)

    def freeze(self) -> None:
        """Read nothing any more."""
        self.transport.pauseProducing()

    def _wait_with(self, data: bytes) -> None:
        """Keep what came first, which tells who is joined, and read no more."""
        unknown = self._calls is None and not self._known and not self._first
        self._frozen += data
        self.freeze()
        if unknown and len(data) >= TAG_BYTES and not data.startswith(PREFACE[:TAG_BYTES]):
            self._serve(data[:TAG_BYTES].decode("latin-1"))

    def _take(self, data: bytes) -> None:
        if self._calls is not None:
            self._calls.received(data)
        elif self._known:
            self.transport.write(data)
        else:
            self._first += data
            self._find_out()

    def _find_out(self) -> None:
        """Keep the first bytes until they tell who it is."""
        first, beginning = self._first, self._first[: len(PREFACE)]
        if len(first) >= TAG_BYTES and not PREFACE.startswith(beginning):
            self._serve(first[:TAG_BYTES].decode("latin-1"))
            self.transport.write(first)
        elif beginning == PREFACE:
            self._calls = Calls(self._serve, self.transport, self._put_off)
            self._calls.received(first)

    @property
    def _known(self) -> bool:
        return bool(self._builder.serving.get(self))

    def _serve(self, who: str) -> None:
        self._builder.serving[self] = who
        self._builder.runner.on_served(who, self._builder, self.transport)

    def _put_off(self, answer: Callable[[], None]) -> None:
        """Answer a health check some time, and take note of who has the answer."""

        def say() -> None:
            self._builder.runner.checked.add((self.transport.peer.host, self._builder.ip))
            answer()

        self._builder.runner.put_off(say)

    def readConnectionLost(self) -> None:
        """All has come; close behind what is still to be written, bytes of somebody unknown included."""
        if not self._known and self._calls is None:
            self.transport.write(self._first)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget it."""
        self._builder.serving.pop(self, None)
