"""The proxy on real sockets of loopback, in a time that runs faster, with builders as tests want them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols import portforward
from zope.interface import implementer

from bkscaler.frontend.acceptor import Ports
from bkscaler.frontend.dial import Dialer
from bkscaler.frontend.listener import ProxyFactory
from bkscaler.frontend.shortcut import Shortcuts
from bkscaler.frontend.surroundings import Surroundings
from bkscaler.model import Replica
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay.hangups import EpollHangups
from bkscaler.relay.pair import CopyRelay
from bkscaler.relay.pipes import PipePool
from bkscaler.relay.poller import Poller
from bkscaler.relay.splice import SpliceRelay, SpliceWorks
from bkscaler.relay.stalls import Stalls
from bkscaler.test.proxy import Heard, HeldCapacity

LOOPBACK = "127.0.0.1"
SPEED = 20.0
"""How many seconds of the proxy's time go by in one second: its 10 s of silence are half a second."""


@implementer(IReactorTime)
class FastTime:
    """
    The time of a reactor, running faster.

    :param reactor: whose time it is.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        """Give the time."""
        return float(self._reactor.seconds() * SPEED)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> IDelayedCall:
        """Schedule a call."""
        call = self._reactor.callLater(delay / SPEED, callable, *args, **kw)
        return _FastCall(call)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Give nothing: nobody asks."""
        return []

    def passing(self, seconds: float) -> Deferred[None]:
        """Wait until so much of this time has gone by."""
        return deferLater(self._reactor, seconds / SPEED)


@implementer(IDelayedCall)
class _FastCall:
    def __init__(self, call: IDelayedCall) -> None:
        self._call = call
        self.cancel, self.active = call.cancel, call.active

    def getTime(self) -> float:
        return float(self._call.getTime() * SPEED)

    def delay(self, secondsLater: float) -> None:
        self._call.delay(secondsLater / SPEED)

    def reset(self, secondsFromNow: float) -> None:
        self._call.reset(secondsFromNow / SPEED)


class LoopbackProxy:
    """
    A proxy that listens, whose cluster is played by hand.

    :param reactor: listens and connects.
    :param builder_port: where builders are, on 127.0.0.1.
    :param settings: what differs from the defaults.
    :ivar port: where it listens.
    :ivar heard: what was reported.
    :ivar outcomes: of the connections that have ended.
    """

    def __init__(self, reactor: Any, builder_port: int, **settings: Any) -> None:
        self.time = FastTime(reactor)
        self.capacity = HeldCapacity()
        self.heard = heard = Heard()
        self.outcomes: list[Outcome] = heard.outcomes
        limit = settings.pop("max_connections", 100)
        self._poller, self._pipes = Poller(reactor), PipePool()
        hangups, stalls = EpollHangups(self._poller), Stalls(reactor)
        works = SpliceWorks(poller=self._poller, pipes=self._pipes, stalls=stalls)
        shared = Surroundings(
            clock=self.time,
            random=lambda: 0.0,
            capacity=self.capacity,
            dialer=Dialer(
                lambda replica, factory: reactor.connectTCP(replica.ip, builder_port, factory).disconnect
            ),
            join=lambda client, builder, may_lend: (
                SpliceRelay(client, builder, works)
                if may_lend
                else CopyRelay(client, builder, hangups=hangups, stalls=stalls)
            ),
            hangups=hangups,
            reports=heard,
            **{"probe_grace_s": 0.25, "hold_after_s": 10.0, "ready_wait_timeout_s": 300.0, **settings},
        )
        self._ways = Shortcuts.made_of(shared, works, builder_port)
        self._factory = ProxyFactory(shared=shared, max_connections=limit, prefix="proxy", ways=self._ways)
        self._listening = Ports(reactor, self._poller).listenTCP(0, self._factory, interface=LOOPBACK)
        self.port: int = self._listening.getHost().port

    def wake(self) -> None:
        """Have a builder that is ready."""
        self.capacity.ready(Replica(ordinal=0, name="buildkitd-0", uid="uid-0", ip=LOOPBACK))

    async def until_told(self, calls: int) -> None:
        """Wait until a held client has been told that a server is there, and has so many calls open."""
        told = f"that a server is there, {calls} streams"
        await self.until(lambda: any(told in repr(session) for session in self._factory._sessions.values()))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Look again and again until something holds; the test's own time limit ends it otherwise."""
        while not condition():
            await self.time.passing(0.2)

    def connections(self) -> list[Any]:
        """Give what serves each connection: a session, or a shortcut."""
        return list(self._factory._sessions.values())

    def cut_all(self) -> None:
        """End every connection."""
        self._factory.cut_all()

    def when_over(self) -> Deferred[None]:
        """Wait until no connection is left."""
        return self._factory.when_empty()

    async def stop(self) -> None:
        """End everything; fires when nothing is open."""
        await self._listening.stopListening()
        self._factory.cut_all()
        await self._factory.when_empty()
        self._ways.silence.stop()
        self._ways.dialling.stop()
        self._poller.close()
        self._pipes.close()


class _Closing(Protocol):
    def connectionMade(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]


class MoodyBuilder(portforward.ProxyFactory):
    """
    Stands before a server and treats its first connections badly; later ones go through.

    :param port: of the server, on 127.0.0.1.
    :param moods: what becomes of each of the first connections, ``"closes"`` or ``"is silent"``.
    :ivar connections: how many there have been.
    """

    noisy = False

    def __init__(self, port: int, *moods: str) -> None:
        super().__init__(LOOPBACK, port)
        self.connections = 0
        self._moods = deque(moods)

    def buildProtocol(self, addr: Any) -> Any:
        """Treat a connection as it is its turn."""
        self.connections += 1
        if not self._moods:
            return super().buildProtocol(addr)
        return _Closing() if self._moods.popleft() == "closes" else Protocol()


class RecordingBuilder(portforward.ProxyFactory):
    """
    Stands before a server and keeps what it is sent.

    :param port: of the server, on 127.0.0.1.
    :ivar received: all bytes.
    """

    noisy = False

    def __init__(self, port: int) -> None:
        super().__init__(LOOPBACK, port)
        self.received = bytearray()
        received = self.received

        class Recording(portforward.ProxyServer):
            def dataReceived(self, data: bytes) -> None:
                received.extend(data)
                super().dataReceived(data)

        self.protocol = Recording


class Link(Factory):
    """
    A way to the proxy on which a client's bytes travel badly, and the answers as they come.

    :param reactor: connects.
    :param port: where to, on 127.0.0.1.
    :param delay_s: how long each piece takes, in real seconds.
    :param single: whether each byte travels in a segment of its own.
    """

    noisy = False

    def __init__(self, reactor: Any, port: int, *, delay_s: float = 0.0, single: bool = False) -> None:
        self._reactor = reactor
        self._port = port
        self._delay_s = delay_s
        self._single = single

    def buildProtocol(self, addr: Any) -> Any:
        """Make both ends."""
        near, far = _End(), _SlowEnd(self._reactor, self._delay_s, self._single)
        near.other, far.other = far, near
        TCP4ClientEndpoint(self._reactor, LOOPBACK, self._port).connect(Factory.forProtocol(lambda: far))
        return near


class _End(Protocol):
    other: Any

    def dataReceived(self, data: bytes) -> None:
        self.other.write(data)

    def write(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        if self.other.transport is not None:
            self.other.transport.loseConnection()


class _SlowEnd(_End):
    def __init__(self, reactor: Any, delay_s: float, single: bool) -> None:
        self._reactor = reactor
        self._delay_s = delay_s
        self._single = single
        self._waiting: deque[bytes] = deque()
        self._going: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self._go()

    def write(self, data: bytes) -> None:
        self._waiting.extend([bytes([byte]) for byte in data] if self._single else [data])
        if self._going is None:
            self._go()

    def connectionLost(self, reason: Any = None) -> None:
        self._waiting.clear()
        if self._going is not None:
            self._going.cancel()
            self._going = None
        super().connectionLost(reason)

    def _go(self) -> None:
        if self._waiting and self.connected:
            self._going = self._reactor.callLater(self._delay_s, self._arrive)

    def _arrive(self) -> None:
        self._going = None
        super().write(self._waiting.popleft())
        self._go()
