"""
One TCP connection in memory: two ends, and what can become of what is between them.

Imported by :mod:`bkscaler.simulation.network`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import main
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.relay.hangups import Hangup
from bkscaler.test.flow import FlowTransport

PIECES = 40
"""Into how many pieces a read is cut at most."""
DEAD_PEER_S = 60.0
"""When a kernel with our options (``relay/sockets``) gives a peer up that says nothing at all."""


@implementer(ITransport, IPushProducer)
class End(FlowTransport):
    """
    One end of a link.

    :ivar link: the connection.
    :ivar host: whose end it is.
    :ivar latency_s: how long the other end's bytes take to get here.
    :ivar read_bytes: how many bytes our protocol has been given.
    :ivar written: whether our protocol has written anything.
    :ivar piece_bytes: how much a read brings at most; 0: whatever there is.
    :ivar on_data: told each piece before the protocol is.
    """

    link: Link
    peer: Any

    def __init__(self, host: Any, protocol: Any, address: IPv4Address, latency_s: float) -> None:
        super().__init__(host.network.clock, protocol, address.port)
        self.host = host
        self.address = address
        self.latency_s = latency_s
        self.read_bytes = self.piece_bytes = 0
        self.written = False
        self.on_data: Callable[[bytes], None] | None = None
        self._pending: dict[str, Any] = {"_read": None, "_flush": None}

    def getHost(self) -> IPv4Address:
        """Give our address."""
        return self.address

    def getPeer(self) -> IPv4Address:
        """Give the other end's address."""
        address: IPv4Address = self.peer.address
        return address

    def write(self, data: bytes) -> None:
        """Write, and take note that there was something."""
        self.written = self.written or bool(data)
        super().write(data)

    def writeSequence(self, pieces: Any) -> None:
        """Write several pieces at once."""
        self.write(b"".join(pieces))

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: bytes are never kept back."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing: see :data:`DEAD_PEER_S`."""

    def _soon(self, act: Any) -> None:
        """Let a thing happen when it has got here; what is on its way already need not set out again."""
        if not self.host.alive:
            return
        name, pending = act.__name__, self._pending
        if name in pending:
            call = pending[name]
            if call is None or not call.active():
                pending[name] = self.clock.callLater(self.latency_s if name == "_read" else 0, act)
        else:
            self.clock.callLater(0, act)

    def _flush(self) -> None:
        if not self.host.alive:
            return
        if self.link.silent:
            self._flush_into_nothing()
        else:
            super()._flush()

    def _flush_into_nothing(self) -> None:
        """The kernel takes what is written, and nothing comes of it."""
        self.unsent.clear()
        if self.disconnecting and self.connected and not self.aborting:
            self._close(main.CONNECTION_DONE)
        self.finished = self.finished or self.finishing

    def _tell(self, hangup: Hangup) -> None:
        if not self.link.silent:
            super()._tell(hangup)

    def _abort(self) -> None:
        if self.host.alive:
            super()._abort()

    def _read(self) -> None:
        if not self.host.alive or self.link.silent:
            return
        if self.link.cut_after_bytes is not None and self.arrived and not self.paused:
            kept = self.link.cut_after_bytes
            data = bytes(self.arrived[:kept])
            if data and self.connected and not self.aborting:
                self.deliver(data)
            self.link.cut()
            return
        super()._read()

    def deliver(self, data: bytes) -> None:
        """Give the protocol what has arrived, in pieces; who pauses gets no more."""
        size = max(self.piece_bytes, len(data) // PIECES) if self.piece_bytes else len(data)
        for at in range(0, len(data), size):
            if not self.connected or self.paused or self.aborting:
                self.arrived[:0] = data[at:]
                return
            self._deliver_piece(data[at : at + size])

    def _deliver_piece(self, data: bytes) -> None:
        """Count what is read, and let whoever wants to see it."""
        self.read_bytes += len(data)
        if self.on_data is not None:
            self.on_data(data)
        super().deliver(data)

    def _reset_peer(self) -> None:
        if not self.link.silent:
            super()._reset_peer()

    def _close(self, reason: Exception) -> None:
        was = self.connected
        super()._close(reason)
        if was:
            self.link.ended(self)

    def die(self) -> None:
        """Be gone with the host; nobody here is told."""
        if self.connected:
            self.connected = False
            self.link.ended(self)
            self._reset_peer()


class Link:
    """
    One connection.

    :ivar number: in the order of their making.
    :ivar client: the end that connected.
    :ivar server: the end that was connected to.
    :ivar silent: whether nothing gets through any more, and nobody is told.
    :ivar harmed: what the network or a death has done to it; ``""`` when nothing.
    :ivar cut_after_bytes: whoever reads next gets so many bytes, and then the link is cut.
    """

    def __init__(self, number: int, client: End, server: End) -> None:
        self.number = number
        self.client, self.server = client, server
        client.peer, server.peer = server, client
        client.link = server.link = self
        self.silent = False
        self.harmed = ""
        self.cut_after_bytes: int | None = None

    def __repr__(self) -> str:
        return f"link {self.number} {self.client.host.name}>{self.server.host.name}"

    @property
    def open(self) -> bool:
        """Whether either end believes that it is connected."""
        return self.client.connected or self.server.connected

    def cut(self) -> None:
        """Reset both ends, dropping what is on its way."""
        self.harmed = self.harmed or "cut"
        self.cut_after_bytes = None
        for end in (self.client, self.server):
            if end.connected and not self.silent:
                end.be_reset()

    def fall_silent(self, dead_after_s: float | None) -> None:
        """Let nothing through any more; kernels find out after so long, or never."""
        self.harmed = self.harmed or "silent"
        self.silent = True
        if dead_after_s is not None:
            self.client.clock.callLater(dead_after_s, self._found_dead)

    def _found_dead(self) -> None:
        self.silent = False
        self.cut()

    def ended(self, end: End) -> None:
        """Forget it when both ends are gone."""
        end.host.ends.pop(end, None)
        end.host.network.on_end(self, end)


class Nobody:
    """The protocol of a connection that was turned away."""

    def dataReceived(self, data: bytes) -> None:
        """Drop it."""

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing."""
