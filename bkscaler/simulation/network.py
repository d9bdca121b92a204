"""
TCP between hosts in memory: ordered, with delays, and with the ways in which real networks fail.

A :class:`Host` listens and connects; a :class:`Link` is one connection between two. Bytes, ends and resets
travel as :mod:`bkscaler.test.flow` has them travel, each direction of a link taking its own time. A link can
be cut, or fall silent for good, as when a cable is pulled; hosts can die.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet import error, main
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConnector, IListeningPort
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.simulation.clock import VirtualTime
from bkscaler.simulation.links import End, Link, Nobody

Random = Callable[[], float]
PIECES_BYTES, PIECED = (8, 40, 1000), 8
"""
The pieces in which one direction in so many has its bytes arrive: enough to see who it is, not enough for the
beginning of HTTP/2.
"""


class Fate(Enum):
    """What becomes of a dial."""

    ARRIVES = "arrives"
    """Then it depends on whether anybody listens."""
    REFUSED = "refused"
    LOST = "lost"
    """It times out."""


class Host:
    """
    Something with an address that can die.

    :ivar alive: whether it has not died.
    :ivar ends: the ends of links here.
    :ivar told: whether its own protocols hear of its death; a process that is killed hears nothing.
    """

    told = True

    def __init__(self, network: Network, name: str, ip: str) -> None:
        self.network = network
        self.name = name
        self.ip = ip
        self.alive = True
        self.ends: dict[End, None] = {}
        self.ports: dict[int, Listening] = {}
        self._next_port = 40000

    def listen(self, port: int, factory: Any) -> Listening:
        """Listen, from now on."""
        if (self.ip, port) in self.network.listening:
            raise error.CannotListenError(self.ip, port, OSError(98, "Address already in use"))
        listening = Listening(self, port, factory)
        self.network.listening[self.ip, port] = self.ports[port] = listening
        return listening

    def new_port(self) -> int:
        """Give a port that no link of ours has had."""
        self._next_port += 1
        return self._next_port

    def die(self) -> None:
        """Be gone at once: every link is reset, nothing listens."""
        if not self.alive:
            return
        for listening in list(self.ports.values()):
            listening.close()
        ends = list(self.ends)
        for end in ends:
            end.link.harmed = end.link.harmed or "died"
        if self.told:
            for end in ends:
                end._reset_peer()
                end._close(main.CONNECTION_LOST)
        self.alive = False
        for end in list(self.ends):
            end.die()


@implementer(IListeningPort)
class Listening:
    """A port that is listened on."""

    def __init__(self, host: Host, port: int, factory: Any) -> None:
        self.host = host
        self.port = port
        self.factory = factory

    def startListening(self) -> None:
        """Do nothing: it listens."""

    def stopListening(self) -> Deferred[None]:
        """Listen no more; fires at once."""
        self.close()
        return succeed(None)

    def close(self) -> None:
        """Listen no more."""
        self.host.ports.pop(self.port, None)
        self.host.network.listening.pop((self.host.ip, self.port), None)

    def getHost(self) -> IPv4Address:
        """Give the address."""
        return IPv4Address("TCP", self.host.ip, self.port)


@implementer(IConnector)
class Connector:
    """One attempt to connect, as ``reactor.connectTCP`` gives it."""

    def __init__(self, host: Host, address: IPv4Address, factory: Any, timeout_s: float) -> None:
        self.host = host
        self._address = address
        self._factory = factory
        self._end: End | None = None
        self._over = False
        network = host.network
        network.on_dial(host, address.host)
        factory.doStart()
        factory.startedConnecting(self)
        fate = network.fate(address.host)
        lost = fate is Fate.LOST
        latency_s = timeout_s if lost else network.latency_s(host, address.host)
        self._trying = network.clock.callLater(latency_s, self._arrive, fate)

    def getDestination(self) -> IPv4Address:
        """Give the address."""
        return self._address

    def connect(self) -> None:
        """Do nothing: it connects."""

    def stopConnecting(self) -> None:
        """Give up, if it has not succeeded."""
        if not self._over:
            self._fail(error.UserError())

    def disconnect(self) -> None:
        """Give up, or close."""
        if self._end is not None:
            self._end.loseConnection()
        else:
            self.stopConnecting()

    def _arrive(self, fate: Fate) -> None:
        network = self.host.network
        if not self.host.alive:
            return
        listening = network.listening.get((self._address.host, self._address.port))
        if fate is Fate.LOST:
            self._fail(error.TimeoutError())
        elif listening is None or fate is Fate.REFUSED:
            self._fail(error.ConnectionRefusedError())
        else:
            self._over = True
            self._end = network.join(self, self._factory, listening)

    def _fail(self, reason: Exception) -> None:
        self._over = True
        if self._trying.active():
            self._trying.cancel()
        self._factory.clientConnectionFailed(self, Failure(reason))
        self._factory.doStop()


class Network:
    """
    All hosts and links of one world.

    :param clock: its time.
    :param random: gives numbers in [0, 1), for latencies.
    :ivar listening: who listens where.
    :ivar on_link: told each new link.
    :ivar on_end: told each end of a link that is closed.
    :ivar on_dial: told each host that sets out to connect, and where to.
    :ivar resolve: gives the address of a name; ``""`` when there is none.
    :ivar fate: says what becomes of a dial to an address.
    """

    def __init__(self, clock: VirtualTime, random: Random) -> None:
        self.clock = clock
        self.listening: dict[tuple[str, int], Listening] = {}
        self.links = 0
        self.on_link: Callable[[Link], None] = lambda link: None
        self.on_end: Callable[[Link, End], None] = lambda link, end: None
        self.on_dial: Callable[[Host, str], None] = lambda host, ip: None
        self.resolve: Callable[[str], str] = lambda name: ""
        self.fate: Callable[[str], Fate] = lambda ip: Fate.ARRIVES
        self._random = random

    def latency_s(self, host: Host, ip: str) -> float:
        """Choose how long a piece takes between two hosts: mostly a fraction of a millisecond."""
        chance = self._random()
        return 0.0002 + 0.002 * chance if chance < 0.95 else 0.05 * self._random()

    def piece_bytes(self) -> int:
        """Choose in which pieces the bytes of a connection arrive: mostly as they were sent."""
        chance = self._random()
        return PIECES_BYTES[int(chance * PIECED * len(PIECES_BYTES))] if chance * PIECED < 1 else 0

    def connect(self, host: Host, ip: str, port: int, factory: Any, timeout_s: float = 30.0) -> Connector:
        """Connect from a host to an address."""
        return Connector(host, IPv4Address("TCP", ip, port), factory, timeout_s)

    def join(self, connector: Connector, factory: Any, listening: Listening) -> End | None:
        """Make the link of a connect that has arrived; the server's side is told first."""
        here, there = connector.host, listening.host
        client_address = IPv4Address("TCP", here.ip, here.new_port())
        client = End(here, Nobody(), client_address, self.latency_s(there, here.ip))
        server = End(there, Nobody(), listening.getHost(), self.latency_s(here, there.ip))
        client.piece_bytes, server.piece_bytes = self.piece_bytes(), self.piece_bytes()
        self.links += 1
        link = Link(self.links, client, server)
        here.ends[client] = there.ends[server] = None
        self.on_link(link)
        server_protocol = listening.factory.buildProtocol(client_address)
        client_protocol = factory.buildProtocol(listening.getHost())
        client.protocol, server.protocol = client_protocol or Nobody(), server_protocol or Nobody()
        if server_protocol is None:
            server.loseConnection()
        else:
            server_protocol.makeConnection(server)
        if client_protocol is None:
            client.abortConnection()
        else:
            client_protocol.makeConnection(client)
        return client
