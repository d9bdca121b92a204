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

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.frontend.sniff import PREFACE

GREETING_S = 0.15
"""When a builder speaks first: after the first bytes of whoever has some to send."""
TAG_BYTES = 8
"""A plain client begins with so many bytes that name it; an HTTP/2 client has a header for that."""


HEALTH_PATH, SERVES = b"/grpc.health.v1.Health/Check", b"\0\0\0\0\2\x08\x01"
"""The call of ``--readiness grpc``, and its answer."""


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
            self._calls = Calls(self._serve, self.transport, self._builder.runner.put_off)

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
            self._calls = Calls(self._serve, self.transport, self._builder.runner.put_off)
            self._calls.received(first)

    @property
    def _known(self) -> bool:
        return bool(self._builder.serving.get(self))

    def _serve(self, who: str) -> None:
        self._builder.serving[self] = who
        self._builder.runner.on_served(who, self._builder, self.transport)

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


PutOff = Callable[[Callable[[], None]], None]


def at_once(answer: Callable[[], None]) -> None:
    """Put nothing off."""
    answer()


class Calls:
    """
    The HTTP/2 side of a builder: each call's body is sent back when it is complete.

    :param serve: told for whom a call is.
    :param put_off: carries out the answer to a health check, now or later.
    """

    def __init__(self, serve: Callable[[str], None], transport: Any, put_off: PutOff = at_once) -> None:
        self._put_off = put_off
        self._serve = serve
        self._transport = transport
        self._broken = False
        self._acknowledged = False
        self._checks: set[int] = set()
        self._bodies: dict[int, bytearray] = {}
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._h2.initiate_connection()
        self._send()

    def received(self, data: bytes) -> None:
        """Take bytes; after what is no HTTP/2 nothing is said any more."""
        if self._broken:
            return
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.H2Error:
            self._broken = True
            self._transport.loseConnection()
            return
        given_up = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                self._bodies[event.stream_id] = bytearray()
                if headers[b":path"] == HEALTH_PATH:
                    self._checks.add(event.stream_id)
                else:
                    self._serve(headers[b"client"].decode())
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded) and event.stream_id not in given_up:
                self._answer(event.stream_id)
            elif isinstance(event, h2.events.SettingsAcknowledged):
                assert not self._acknowledged, "our SETTINGS are acknowledged twice"
                self._acknowledged = True
            elif isinstance(event, h2.events.StreamReset):
                self._bodies.pop(event.stream_id, None)
        self._send()

    def _answer(self, stream: int) -> None:
        if stream in self._checks:
            self._put_off(lambda: self._answer_check(stream))
        else:
            self._answer_with(stream, bytes(self._bodies.pop(stream, b"")))

    def _answer_check(self, stream: int) -> None:
        if self._bodies.pop(stream, None) is not None and self._transport.connected:
            self._answer_with(stream, SERVES)
            self._send()

    def _answer_with(self, stream: int, body: bytes) -> None:
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self._h2.send_data(stream, body)
        self._h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def _send(self) -> None:
        self._transport.write(self._h2.data_to_send())
