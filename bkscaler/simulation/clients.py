"""
The clients of a world: builds that send and wait for what they have sent, probes, and people who give up.

Each knows what it has sent and what it may expect, and keeps a record of its own end that the judge reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.simulation.clock import VirtualTime
from bkscaler.simulation.links import DEAD_PEER_S
from bkscaler.simulation.serving import TAG_BYTES

SPOKEN_S = 0.07
"""Until then a client has spoken that is not far away, and its words have arrived."""


def counted(first: int, end: int) -> bytes:
    """Write every eighth number, from the first one to before the end, with eight hexadecimal digits each."""
    numbers = range(first, end, 8)
    return struct.pack(f">{len(numbers)}I", *numbers).hex().encode()


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """
    One client with one connection.

    :param name: :data:`~bkscaler.simulation.builders.TAG_BYTES` characters that no other client has.
    :param clock: for what it does later.
    :ivar peer: its address, as bkscaler's log shows it; ``""`` until it is connected.
    :ivar sent: what it has sent, as far as it must come back.
    :ivar received: what has come back.
    :ivar has_spoken: whether it has sent anything.
    :ivar asked_s: since when it has wanted a builder.
    :ivar asked_from_s: since when it may seem to have: what was sent meanwhile may have come at once.
    :ivar latency_s: how much longer than for others bytes take to it, and from it.
    :ivar ending: what it has done to end the connection; ``""`` as long as it has done nothing.
    :ivar saw_end: whether the other side has finished.
    :ivar lost: why the connection is gone; None while it is there.
    :ivar wrong: what was against its expectations.
    """

    transport: Any = None
    kind = "plain"

    def __init__(self, name: str, clock: VirtualTime) -> None:
        assert len(name) == TAG_BYTES
        self.name = name
        self.peer = ""
        self.sent = bytearray()
        self.received = bytearray()
        self.ending = ""
        self.saw_end = False
        self.lost: Failure | None = None
        self.wrong = ""
        self.has_spoken = False
        self.asked_s = self.asked_from_s = 0.0
        self.latency_s = 0.0
        self._later: list[tuple[float, Callable[[], object]]] = []
        self.on_end: Callable[[Client], None] = lambda client: None
        self._clock = clock

    def __repr__(self) -> str:
        return f"<{self.kind} client {self.name}>"

    @property
    def open(self) -> bool:
        """Whether it is connected and has not ended."""
        return self.transport is not None and self.lost is None

    @property
    def wants(self) -> bool:
        """Whether it waits for a builder that would serve it."""
        return self.open and self.has_spoken and not self.ending

    def connectionMade(self) -> None:
        """Remember where from and when."""
        address = self.transport.getHost()
        self.peer = f"{address.host}:{address.port}"
        self.asked_s = self.asked_from_s = self._clock.rightNow
        if self.latency_s:
            for end in (self.transport, self.transport.peer):
                end.latency_s += self.latency_s
        for seconds, act in self._later:
            self._clock.callLater(seconds, act)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something so long after it has connected. To be called before it has."""
        self._later.append((seconds, act))

    def say(self, size: int) -> None:
        """Send so many bytes, which no other moment of any client's would send."""
        if not self.open or self.ending:
            return
        at = len(self.sent)
        data = self.name.encode() if not at else b""
        data += counted(at, at + size)
        data = data[: max(size, TAG_BYTES - at)]
        self.sent += data
        self.has_spoken = True
        self.transport.write(data)

    def rest(self) -> None:
        """Read nothing any more."""
        if self.open:
            self.transport.pauseProducing()

    def go_on(self) -> None:
        """Read again."""
        if self.open and self.ending in {"", "finished"}:
            self.transport.resumeProducing()

    def finish(self) -> None:
        """Half-close: no more is sent, the rest of the answer is waited for."""
        if self.open and not self.ending:
            self.ending = "finished"
            self.transport.loseWriteConnection()

    def hang_up(self) -> None:
        """Close."""
        if self.open and self.ending in {"", "finished"}:
            self.ending = "hung up"
            self.transport.loseConnection()

    def reset(self) -> None:
        """Reset."""
        if self.open:
            self.ending = "reset"
            self.transport.abortConnection()

    def vanish(self) -> None:
        """Say nothing any more, as when a laptop is closed."""
        if self.open:
            self.ending = "vanished"
            self.transport.link.fall_silent(DEAD_PEER_S)

    def dataReceived(self, data: bytes) -> None:
        """Compare what has come back with what was sent."""
        at = len(self.received)
        self.received += data
        if not self.sent.startswith(data, at):
            self.wrong = self.wrong or f"{self} got bytes at {at} that it has not sent: {data[:40]!r}"

    def readConnectionLost(self) -> None:
        """Close, too."""
        self.saw_end = True
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember the end."""
        self.lost = reason
        self.on_end(self)

    def forget(self) -> None:
        """Drop what was sent and what has come back, which is a third of what a world leaves behind."""
        self.sent.clear()
        self.received.clear()

    @property
    def was_reset(self) -> bool:
        """Whether the connection was reset by somebody else."""
        return self.lost is not None and self.lost.check(ConnectionLost) is not None

    @property
    def complete(self) -> bool:
        """Whether everything has come back."""
        return self.received == self.sent


class Garbage(Client):
    """Sends bytes that mean nothing, or nothing good."""

    kind = "garbage"

    def __init__(self, name: str, clock: VirtualTime, words: bytes) -> None:
        super().__init__(name, clock)
        self.words = words

    def say(self, size: int) -> None:
        """Send them; what comes back is not compared."""
        if self.open and not self.ending:
            self.has_spoken = True
            self.transport.write(self.words)

    def dataReceived(self, data: bytes) -> None:
        """Take whatever comes."""
        self.received += data

    @property
    def complete(self) -> bool:
        """There is nothing to be complete."""
        return True


class Connecting(ClientFactory):
    """
    Connects one client.

    :param refused: called when nobody listens.
    """

    noisy = False

    def __init__(self, client: Client, refused: Callable[[], None]) -> None:
        self._client = client
        self._refused = refused

    def buildProtocol(self, addr: object) -> Client:
        """Give the client."""
        return self._client

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """Tell."""
        self._refused()
