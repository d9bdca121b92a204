"""
TCP in memory, for tests of what is built on it: windows, pausing, half-close and resets, on a clock.

:func:`connected` joins two protocols by two :class:`FlowTransport`, which behave as Twisted's do on a real
socket; ``test_relay`` and ``test_relay_ends`` hold the double and real sockets to the same tests. Nothing
happens inside a call: bytes and ends travel when the clock is advanced.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import error, main
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.relay.hangups import Hangup

WINDOW_BYTES = 256 * 1024
"""How much the kernel takes for a reader that does not read."""
BUFFER_BYTES = 64 * 1024
"""How much a transport buffers before it pauses its producer, and reads at once, as in Twisted."""


class FlowTransport:
    """One end of a connection. ``peer`` is the other end."""

    peer: FlowTransport
    bufferSize = BUFFER_BYTES

    def __init__(self, clock: Clock, protocol: Any, port: int) -> None:
        self.clock = clock
        self.protocol = protocol
        self.port = port
        self.connected = True
        self.paused = self.disconnecting = self.finishing = self.finished = self.aborting = False
        self.end_read = self.reset = False
        self.unsent, self.arrived = bytearray(), bytearray()
        self.producer: Any = None
        self.producer_paused = False
        self.watchers: list[Any] = []

    def write(self, data: bytes) -> None:
        """Buffer bytes; pause the producer when there are too many."""
        if self.connected and not self.finished and data:
            self.unsent += data
            if self.producer is not None and len(self.unsent) > BUFFER_BYTES:
                self.producer_paused = True
                self.producer.pauseProducing()
            self._soon(self._flush)

    def loseWriteConnection(self) -> None:
        """Finish, behind what is buffered."""
        self.finishing = True
        self._soon(self._flush)

    def loseConnection(self) -> None:
        """Close, behind what is buffered."""
        if self.connected and not self.disconnecting:
            self.paused = True
            self.disconnecting = True
            if self.finished:
                self._close(main.CONNECTION_DONE)
            else:
                self._soon(self._flush)

    def abortConnection(self) -> None:
        """Reset the connection."""
        if self.connected and not self.aborting:
            self.aborting = self.paused = True
            self._soon(self._abort)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have a producer, which is paused when the buffer is full."""
        assert streaming
        if self.producer is not None:
            raise RuntimeError("a producer is registered")
        if not self.connected:
            producer.stopProducing()
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Have none."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Read no more."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Read again."""
        if self.connected and not self.disconnecting and not self.aborting:
            self.paused = False
            self._soon(self._read)

    def getPeer(self) -> IPv4Address:
        """Give the other end's address."""
        return IPv4Address("TCP", "127.0.0.1", self.port)

    def deliver(self, data: bytes) -> None:
        """Give the protocol what one read has brought."""
        self.protocol.dataReceived(data)

    def _soon(self, act: Any) -> None:
        self.clock.callLater(0, act)

    def _flush(self) -> None:
        """Move bytes into the peer's kernel, as far as its window allows."""
        if not self.connected or self.aborting:
            return
        if self.reset and self.unsent:
            self._close(main.CONNECTION_LOST)
            return
        if self.unsent and not self.peer.connected:
            self._be_refused()
            return
        if self.unsent:
            count = max(0, WINDOW_BYTES - len(self.peer.arrived))
            self.peer.arrived += self.unsent[:count]
            del self.unsent[:count]
        self.peer._soon(self.peer._read)
        if self.unsent:
            return
        if self._go_on():
            return
        if self.disconnecting:
            self._close(main.CONNECTION_DONE)
        elif self.finishing and not self.finished:
            self._finish()

    def _go_on(self) -> bool:
        """Let a producer go on that was paused; say whether there was one."""
        if self.producer is None or not self.producer_paused:
            return False
        self.producer_paused = False
        self.producer.resumeProducing()
        return True

    def _be_refused(self) -> None:
        """Bytes for a socket that is closed are answered with a reset."""
        self.unsent.clear()
        self.be_reset()
        self._go_on()
        if self.disconnecting:
            self._close(main.CONNECTION_LOST)

    def _finish(self) -> None:
        self.finished = True
        self.peer._tell(Hangup.FINISHED)
        self.peer._soon(self.peer._read)
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.writeConnectionLost()

    def _read(self) -> None:
        """Give the protocol one read, and come back for more; after the end nobody listens any more."""
        if not self.connected or self.paused or self.aborting or self.end_read:
            return
        if self.reset:
            self._close(main.CONNECTION_LOST)
        elif self.arrived:
            data = bytes(self.arrived[: self.bufferSize])
            del self.arrived[: self.bufferSize]
            self.peer._soon(self.peer._flush)
            self.deliver(data)
            self._soon(self._read)
        elif self.peer.finished:
            self.end_read = True
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                half.readConnectionLost()
            else:
                self._close(main.CONNECTION_DONE)

    def _abort(self) -> None:
        self._reset_peer()
        self._close(error.ConnectionAborted())

    def _close(self, reason: Exception) -> None:
        """Close this end; a reader that leaves bytes behind resets, as the kernel does."""
        if not self.connected:
            return
        self.connected = False
        if self.arrived:
            self._reset_peer()
        if not self.finished:
            self.finished = True
            self.peer._tell(Hangup.FINISHED)
            self.peer._soon(self.peer._read)
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.watchers.clear()
        self.protocol.connectionLost(Failure(reason))

    def _reset_peer(self) -> None:
        if self.peer.connected:
            self.peer.be_reset()

    def be_reset(self) -> None:
        """
        Lose the connection. Heard of by whoever reads or has something to write; one that is paused, or has
        read the end, hears of it only through a hang-up watch.
        """
        self.reset = True
        self.arrived.clear()
        self._tell(Hangup.LOST)
        self._soon(self._read)
        self._soon(self._flush)

    def _tell(self, hangup: Hangup) -> None:
        for watcher in list(self.watchers):
            self._soon(lambda watcher=watcher: watcher.hear(hangup))


class FlowHangups:
    """Watches flow transports while they are paused."""

    def watch(self, transport: FlowTransport, on_hangup: Any) -> FlowWatch:
        """Watch one; what has happened before is told as well."""
        watch = FlowWatch(transport, on_hangup)
        transport.watchers.append(watch)
        if transport.reset or transport.peer.finished:
            transport._tell(Hangup.LOST if transport.reset else Hangup.FINISHED)
        return watch


class FlowWatch:
    """One watch."""

    def __init__(self, transport: FlowTransport, on_hangup: Any) -> None:
        self.transport = transport
        self.on_hangup = on_hangup

    def hear(self, hangup: Hangup) -> None:
        """Pass on, unless ended."""
        if self in self.transport.watchers:
            self.on_hangup(hangup)

    def end(self) -> None:
        """End."""
        if self in self.transport.watchers:
            self.transport.watchers.remove(self)


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """The far side of a connection: a client, or a builder. Records what happens to it."""

    transport: Any = None

    def __init__(self) -> None:
        self.received = bytearray()
        self.saw_end = False
        self.lost: Failure | None = None

    @property
    def was_reset(self) -> bool:
        """Whether the connection ended by a reset."""
        return self.lost is not None and self.lost.check(error.ConnectionLost) is not None

    @property
    def was_let_go(self) -> bool:
        """Whether the other side has ended the connection, in whichever way."""
        return self.saw_end or self.lost is not None

    def send(self, data: bytes) -> None:
        """Write."""
        self.transport.write(data)

    def finish(self) -> None:
        """Half-close."""
        self.transport.loseWriteConnection()

    def hang_up(self) -> None:
        """Close."""
        self.transport.loseConnection()

    def reset(self) -> None:
        """Reset."""
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Record."""
        self.received += data

    def readConnectionLost(self) -> None:
        """Record."""
        self.saw_end = True

    def writeConnectionLost(self) -> None:
        """Nothing to record."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Record."""
        self.lost = reason


def connected(clock: Clock, first: Any, second: Any) -> tuple[FlowTransport, FlowTransport]:
    """Connect two protocols; both are told at once."""
    one, other = FlowTransport(clock, first, 40001), FlowTransport(clock, second, 40002)
    one.peer, other.peer = other, one
    first.makeConnection(one)
    second.makeConnection(other)
    return one, other


def settle(clock: Clock, turns: int = 2000) -> None:
    """Let everything that is due now happen, and what follows from it, with the clock standing still."""
    for _ in range(turns):
        if not any(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls()):
            return
        clock.advance(0)
    raise AssertionError("this does not settle")
