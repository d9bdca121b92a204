"""
The way from bkscaler to the API server, which can be closed and blocked.

It passes bytes on as they are, TLS included. The soak itself sees the cluster all the time.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

LOOPBACK = "127.0.0.1"


class Gate(Factory):
    """
    Listens from :meth:`open` to :meth:`close`.

    :param reactor: listens and connects.
    :param target_port: of the API server, on 127.0.0.1.
    :ivar port: where it listens, the same all the time; 0 before it has been opened.
    """

    noisy = False

    def __init__(self, reactor: Any, target_port: int) -> None:
        self.port = 0
        self._reactor = reactor
        self._target_port = target_port
        self._listening: Any = None
        self._ends: set[_End] = set()
        self._blocked = False

    def __repr__(self) -> str:
        return f"<Gate {self.port}, {len(self._ends) // 2} connections>"

    def open(self) -> None:
        """Listen; nothing happens if it does."""
        if self._listening is None:
            self._listening = self._reactor.listenTCP(self.port, self, interface=LOOPBACK)
            self.port = self._listening.getHost().port

    def close(self) -> Deferred[None]:
        """Refuse connections and cut those that there are; fires when nothing listens."""
        listening, self._listening = self._listening, None
        self.cut()
        return (
            maybeDeferred(listening.stopListening) if listening is not None else maybeDeferred(lambda: None)
        )

    def cut(self) -> None:
        """Cut all connections."""
        for end in list(self._ends):
            end.transport.abortConnection()

    def block(self) -> None:
        """Let nothing through, as if the server was stopped: connections are made, and nothing is said."""
        self._blocked = True
        self._listening.stopReading()
        for end in self._ends:
            end.transport.pauseProducing()

    def unblock(self) -> None:
        """Let everything through that has waited."""
        self._blocked = False
        self._listening.startReading()
        for end in self._ends:
            if end.other is not None:
                end.transport.resumeProducing()

    def buildProtocol(self, addr: object) -> Protocol:
        """Take a connection of bkscaler's."""
        return _End(self)

    def came(self, end: _End) -> None:
        """Connect it to the server."""
        self._ends.add(end)
        if end.other is None:
            end.transport.pauseProducing()
            self._reactor.connectTCP(LOOPBACK, self._target_port, _Onward(self, end))

    def went(self, end: _End) -> None:
        """Close what it was connected to."""
        self._ends.discard(end)
        if end.other is not None:
            end.other.transport.loseConnection()

    def joined(self, end: _End) -> None:
        """Let the bytes flow."""
        if not self._blocked:
            end.transport.resumeProducing()


class _End(Protocol):
    """
    One end of a connection that passes the gate.

    :ivar other: the other one; None until it is there.
    :ivar lost: whether it is gone.
    """

    transport: Any = None

    def __init__(self, gate: Gate, other: _End | None = None) -> None:
        self.other = other
        self.lost = False
        self._gate = gate

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._gate.came(self)
        if self.other is not None:
            self.other.other = self
            self._gate.joined(self.other)
            if self.other.lost:
                self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self._gate.went(self)


class _Onward(Factory):
    """Makes the end at the server."""

    noisy = False

    def __init__(self, gate: Gate, end: _End) -> None:
        self._gate = gate
        self._end = end

    def buildProtocol(self, addr: object) -> _End:
        return _End(self._gate, self._end)

    def startedConnecting(self, connector: object) -> None:
        """Need nothing."""

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:
        """Need nothing."""

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._end.transport.abortConnection()
