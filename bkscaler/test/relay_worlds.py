"""
Two peers and a relay between them: in memory, and on loopback with every relay that there is.

Each world is told apart only by what its relay is made of, so that one contract (``test_relay``,
``test_relay_ends``) holds all of them to the same. A case runs scenarios in fresh worlds and sees that
nothing is left of them: no descriptor, no pipe, no delayed call, and no leg that was not told of its end.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bkscaler.relay import sockets
from bkscaler.relay.bare import BareTransport
from bkscaler.relay.hangups import EpollHangups
from bkscaler.relay.leg import Leg, Parked
from bkscaler.relay.pair import CopyRelay
from bkscaler.relay.pipes import PipePool
from bkscaler.relay.poller import Poller, Registration
from bkscaler.relay.splice import CAN_SPLICE, EVENTS, SpliceRelay, SpliceWorks
from bkscaler.relay.stalls import Stalls
from bkscaler.test.flow import FlowHangups, Peer, connected, settle

LOOPBACK = "127.0.0.1"
LIMIT_S = 20.0
"""How long anything is waited for."""
reactor: Any = global_reactor


def descriptors() -> dict[str, str]:
    """Say what this process has open, but for what Twisted keeps in reserve: number, and what it is."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the directory that was listed
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return {number: what for number, what in found.items() if what != os.devnull}


class CountedLeg(Leg):
    """
    A leg that counts how often it was told of its end.

    :ivar losses: how often.
    """

    losses = 0

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Count."""
        self.losses += 1
        super().connectionLost(reason)


class MemoryWorld:
    """
    In memory.

    :ivar client: the far side of the first leg.
    :ivar builder: the far side of the second.
    :ivar legs: both.
    :ivar relay: joins them once it is started.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.client, self.builder = Peer(), Peer()
        self.legs = [CountedLeg(Parked()), CountedLeg(Parked())]
        for leg, peer in zip(self.legs, (self.client, self.builder), strict=True):
            connected(self.clock, peer, leg)
        self.relay = CopyRelay(*self.legs, hangups=FlowHangups(), stalls=Stalls(self.clock))

    def start(self, early: bytes = b"", greeting: bytes = b"") -> None:
        """Start the relay."""
        self.relay.start(early, greeting)

    async def turn(self) -> None:
        """Let happen what has to."""
        settle(self.clock, 100_000)

    async def until(self, condition: Any) -> None:
        """Let happen what has to, then see whether it has."""
        await self.turn()
        assert condition(), f"{self.relay!r}: {self.client.lost}, {self.builder.lost}"

    async def until_stalled(self, sender: Peer) -> None:
        """Let happen what has to, then see whether one side's bytes do not go on to the other."""
        await self.until(lambda: self.legs[sender is self.builder].transport.paused)

    async def close(self) -> None:
        """End what is left."""
        self.relay.cut()
        await self.turn()
        assert self.clock.getDelayedCalls() == []


class SocketWorld:
    """
    On loopback, with the relay that copies. See :class:`MemoryWorld`.

    :param pipes: shared with other worlds, and closed by the test; None is a pool of its own.
    """

    def __init__(self, pipes: PipePool | None = None) -> None:
        self.poller = Poller(reactor)
        self.stalls = Stalls(reactor)
        self.pipes = PipePool() if pipes is None else pipes
        self._own_pipes = pipes is None

    async def open(self) -> None:
        """Connect everybody."""
        self.client, client_leg = await self.connect()
        self.builder, builder_leg = await self.connect()
        self.legs = [client_leg, builder_leg]
        self.relay: Any = self.join(client_leg, builder_leg)

    def join(self, client: Leg, builder: Leg) -> Any:
        """Make the relay."""
        return CopyRelay(client, builder, hangups=EpollHangups(self.poller), stalls=self.stalls)

    def works(self) -> SpliceWorks:
        """Give what a splicing relay needs."""
        return SpliceWorks(poller=self.poller, pipes=self.pipes, stalls=self.stalls)

    async def connect(self) -> tuple[Peer, CountedLeg]:
        """Make a peer and the leg that it is connected with."""
        leg, accepted = CountedLeg(Parked()), Deferred[None]()

        class Accepting(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Leg:
                accepted.callback(None)
                return leg

        port = await TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK).listen(Accepting())
        peer = await self.dial(port.getHost().port)
        await accepted
        await port.stopListening()
        return peer, leg

    async def dial(self, port: int) -> Peer:
        """Connect a peer."""
        endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        peer: Any = await endpoint.connect(Factory.forProtocol(Peer))
        return peer

    def start(self, early: bytes = b"", greeting: bytes = b"") -> None:
        """Start the relay."""
        self.relay.start(early, greeting)

    async def turn(self) -> None:
        """Turn the reactor once."""
        await deferLater(reactor, 0)

    async def until(self, condition: Any) -> None:
        """Turn the reactor until something is so, for a while at most."""
        give_up_s = reactor.seconds() + LIMIT_S
        while not condition():
            assert reactor.seconds() < give_up_s, f"{self.relay!r}: {self.client.lost}, {self.builder.lost}"
            await deferLater(reactor, 0.001)

    async def until_stalled(self, sender: Peer) -> None:
        """
        Turn the reactor until one side's bytes do not go on to the other: our socket takes no more for the
        reader, and there are more of them for us to read.
        """
        for _ in range(2):  # the second time the relay has had its turn in between
            await self.until(lambda: self._is_full(sender))
            await self.turn()

    def _is_full(self, sender: Peer) -> bool:
        handles = [leg.transport.getHandle() for leg in self.legs]
        source, sink = handles if sender is self.client else reversed(handles)
        readable, writable, _ = select.select([source], [sink], [], 0)
        return bool(readable and not writable)

    async def close(self) -> None:
        """End what is left, and see that no pipe is lent and no socket listened to any more."""
        self.relay.cut()
        for peer in (self.client, self.builder):
            if peer.lost is None:
                peer.transport.abortConnection()
        await self.until(lambda: self.client.lost and self.builder.lost and self.relay.ended.called)
        assert repr(self.poller) == "<Poller of 0>", repr(self.poller)
        self.poller.close()
        if self._own_pipes:
            self.pipes.close()
            assert not len(self.pipes), repr(self.pipes)


class SpliceWorld(SocketWorld):
    """The same with the kernel moving the bytes."""

    def join(self, client: Leg, builder: Leg) -> Any:
        """Make the relay."""
        return SpliceRelay(client, builder, self.works())


class BareWorld(SocketWorld):
    """The same without transports of Twisted's, listened to before they are joined: as a shortcut does it."""

    def __init__(self, pipes: PipePool | None = None) -> None:
        super().__init__(pipes)
        self._registered: list[Registration] = []
        self._told = [0, 0]

    async def connect(self) -> tuple[Peer, CountedLeg]:
        """Make a peer and a leg."""
        with socket.create_server((LOOPBACK, 0)) as listening:
            peer = await self.dial(listening.getsockname()[1])
            handle, _ = listening.accept()
        handle.setblocking(False)
        sockets.tune_handle(handle)
        leg = CountedLeg(Parked())
        leg.transport = BareTransport(handle, leg)
        return peer, leg

    def join(self, client: Leg, builder: Leg) -> Any:
        """Listen to both, and make the relay."""
        for number, leg in enumerate((client, builder)):
            descriptor = leg.transport.getHandle().fileno()
            self._registered.append(self.poller.register(descriptor, EVENTS, self._listener(number)))
        return SpliceRelay(client, builder, self.works(), self._registered)

    def start(self, early: bytes = b"", greeting: bytes = b"") -> None:
        """Start the relay, and tell it what was told before."""
        self.relay.start(early, greeting)
        for leg, registration, events in zip(self.legs, self._registered, self._told, strict=True):
            if events and not leg.is_lost:
                registration.on_events(events)

    def _listener(self, number: int) -> Any:
        def heard(events: int) -> None:
            self._told[number] |= events

        return heard


class MemoryCase(SynchronousTestCase):
    """Runs scenarios in memory."""

    def run_in_world(self, *scenarios: Any) -> None:
        """Run each scenario in a fresh world."""
        for scenario in scenarios:
            world = MemoryWorld()
            for step in (scenario(world), world.close()):
                self.successResultOf(Deferred.fromCoroutine(step))
            self.assertEqual([leg.losses for leg in world.legs], [1, 1])


class CopyCase(TestCase):
    """Runs scenarios on loopback, with the relay that copies."""

    world: type[SocketWorld] = SocketWorld
    timeout = 60

    def run_in_world(self, *scenarios: Any) -> Deferred[None]:
        """Run each scenario in a fresh world."""
        return Deferred.fromCoroutine(self._run_all(scenarios))

    async def _run_all(self, scenarios: Any) -> None:
        await deferLater(reactor, 0)  # from here on the reactor is running, and has what it needs itself
        for scenario in scenarios:
            before = descriptors(), len(reactor.getDelayedCalls())
            world = self.world()
            await world.open()
            try:
                await scenario(world)
            finally:
                await world.close()
            self.assertEqual((descriptors(), len(reactor.getDelayedCalls())), before)
            self.assertEqual([leg.losses for leg in world.legs], [1, 1])


class SpliceCase(CopyCase):
    """The same with the relay that splices."""

    if not CAN_SPLICE:
        skip = "this system has no splice"
    world: type[SocketWorld] = SpliceWorld


class BareCase(SpliceCase):
    """The same with the relay that splices, and no transports."""

    world = BareWorld
