"""
Tests of joined connections, on the double and on real sockets alike.

Everything that a relay promises is in :class:`RelayContract`; its two heirs run it over
:mod:`bkscaler.test.flow`, which shows that the double behaves as TCP does, and over loopback.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bkscaler.relay.hangups import EpollHangups
from bkscaler.relay.leg import Leg, Parked
from bkscaler.relay.pair import CopyRelay, End
from bkscaler.relay.pipes import PipePool
from bkscaler.relay.poller import Poller
from bkscaler.relay.splice import CAN_SPLICE, SpliceRelay, SpliceWorks
from bkscaler.relay.stalls import Stalls
from bkscaler.test.flow import FlowHangups, Peer, connected, settle


class MemoryWorld:
    """Two peers and the two legs between them, in memory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.client, self.builder = Peer(), Peer()
        legs = [Leg(Parked()), Leg(Parked())]
        connected(self.clock, self.client, legs[0])
        connected(self.clock, self.builder, legs[1])
        self.relay = CopyRelay(*legs, hangups=FlowHangups(), stalls=Stalls(self.clock))
        self.legs = legs

    async def until(self, condition: Any) -> None:
        """Let happen what has to, then see whether it has."""
        settle(self.clock, 100_000)
        assert condition(), f"{self.relay!r}: {self.client.lost}, {self.builder.lost}"

    async def close(self):
        """End what is left."""
        self.relay.cut()
        settle(self.clock)


class SocketWorld:
    """The same on loopback."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.poller = Poller(reactor)
        self.stalls = Stalls(reactor)
        self.pipes = PipePool()

    async def open(self):
        """Connect everybody."""
        self.client, client_leg = await self._connect()
        self.builder, builder_leg = await self._connect()
        self.legs = [client_leg, builder_leg]
        self.relay = self.join(client_leg, builder_leg)

    def join(self, client: Leg, builder: Leg) -> Any:
        """Make the relay."""
        return CopyRelay(client, builder, hangups=EpollHangups(self.poller), stalls=self.stalls)

    async def _connect(self):
        leg, accepted = Leg(Parked()), Deferred()

        class Accepting(Factory):
            noisy = False

            def buildProtocol(self, addr):
                accepted.callback(None)
                return leg

        port = await TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1").listen(Accepting())
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port)
        peer = await endpoint.connect(Factory.forProtocol(Peer))
        await accepted
        await port.stopListening()
        return peer, leg

    async def until(self, condition: Any) -> None:
        """Turn the reactor until something is so, for 20 s at most."""
        give_up_s = self.reactor.seconds() + 20
        while not condition():
            assert self.reactor.seconds() < give_up_s, f"{self.relay!r}"
            await deferLater(self.reactor, 0.001)

    async def disconnect(self):
        """End the connections."""
        self.relay.cut()
        for peer in (self.client, self.builder):
            if peer.lost is None:
                peer.transport.abortConnection()
        await self.until(lambda: self.client.lost and self.builder.lost and self.relay.ended.called)
        self.poller.close()

    async def close(self):
        """End what is left, and see that no pipe is lent any more."""
        await self.disconnect()
        self.pipes.close()
        assert not len(self.pipes), repr(self.pipes)


class SpliceWorld(SocketWorld):
    """The same with the kernel moving the bytes."""

    def join(self, client, builder):
        """Make the relay."""
        works = SpliceWorks(poller=self.poller, pipes=self.pipes, stalls=self.stalls)
        return SpliceRelay(client, builder, works)


class RelayContract:
    """What a relay does, whatever it is made of. ``world()`` gives two peers and a relay not yet started."""

    def ends(self, world: Any) -> list[End]:
        """Record how the relay ends."""
        ends: list[End] = []
        world.relay.ended.addCallback(ends.append)
        return ends

    def test_both_ways(self):
        """Bytes arrive in order and unchanged, in both directions at once, whatever the chunks."""

        async def scenario(world):
            chance = random.Random(7)
            up, down = chance.randbytes(3_000_000), chance.randbytes(3_000_000)
            world.relay.start(b"")
            for data, peer in ((up, world.client), (down, world.builder)):
                place = 0
                while place < len(data):
                    size = chance.choice((1, 1, 17, 1000, 65_536, 300_000))
                    peer.send(data[place : place + size])
                    place += size
            await world.until(lambda: len(world.builder.received) == len(up))
            await world.until(lambda: len(world.client.received) == len(down))
            self.assertEqual((bytes(world.builder.received), bytes(world.client.received)), (up, down))
            self.assertEqual((world.relay.bytes_up, world.relay.bytes_down), (len(up), len(down)))

        return self.run_in_world(scenario)

    def test_early_bytes_come_first(self):
        """What the client sent before it was joined comes before what it sends later."""

        async def scenario(world):
            world.client.send(b"late")
            world.relay.start(b"early ")
            await world.until(lambda: bytes(world.builder.received) == b"early late")
            self.assertEqual(world.relay.bytes_up, 10)

        return self.run_in_world(scenario)

    def test_half_close_by_the_client(self):
        """After the client has finished, the builder can still answer; then the relay is complete."""

        async def scenario(world):
            ends = self.ends(world)
            world.relay.start(b"")
            world.client.send(b"question")
            world.client.finish()
            await world.until(lambda: world.builder.saw_end)
            self.assertEqual(bytes(world.builder.received), b"question")
            world.builder.send(b"answer")
            await world.until(lambda: bytes(world.client.received) == b"answer")
            world.builder.hang_up()
            await world.until(lambda: ends)
            self.assertEqual((ends, world.client.was_reset), ([End.COMPLETED], False))

        return self.run_in_world(scenario)

    def test_half_close_by_the_builder(self):
        """After the builder has finished, the client can still send."""

        async def scenario(world):
            ends = self.ends(world)
            world.relay.start(b"")
            world.builder.finish()
            await world.until(lambda: world.client.saw_end)
            world.client.send(b"more")
            await world.until(lambda: bytes(world.builder.received) == b"more")
            world.client.hang_up()
            await world.until(lambda: ends)
            self.assertEqual((ends, world.builder.was_reset), ([End.COMPLETED], False))

        return self.run_in_world(scenario)

    def test_client_finished_before(self):
        """A client that finished before it was joined has its bytes and its end passed on."""

        async def scenario(world):
            world.legs[0].transport.resumeProducing()
            world.client.finish()
            await world.until(lambda: world.legs[0].has_finished)
            world.relay.start(b"question")
            await world.until(lambda: world.builder.saw_end)
            self.assertEqual(bytes(world.builder.received), b"question")

        return self.run_in_world(scenario)

    def test_both_finish_at_once(self):
        """When both sides finish at the same moment, the relay is complete and nothing is lost."""

        async def scenario(world):
            ends = self.ends(world)
            world.relay.start(b"")
            world.client.send(b"a" * 500_000)
            world.builder.send(b"b" * 500_000)
            world.client.finish()
            world.builder.finish()
            await world.until(lambda: ends)
            await world.until(lambda: len(world.client.received) == len(world.builder.received) == 500_000)
            self.assertEqual(ends, [End.COMPLETED])

        return self.run_in_world(scenario)

    def test_end_behind_many_bytes(self):
        """The end of a direction waits for the bytes before it, however slowly they are read."""

        async def scenario(world):
            world.builder.transport.pauseProducing()
            world.relay.start(b"")
            world.client.send(b"x" * 8_000_000)
            world.client.finish()
            await world.until(lambda: self.stalled(world))
            world.builder.transport.resumeProducing()
            await world.until(lambda: world.builder.saw_end)
            self.assertEqual(len(world.builder.received), 8_000_000)

        return self.run_in_world(scenario)

    def test_resets(self):
        """A reset on one side is a reset on the other, and the relay says whose it was."""

        async def by_client(world):
            ends = self.ends(world)
            world.relay.start(b"")
            world.client.reset()
            await world.until(lambda: ends and world.builder.lost)
            self.assertEqual((ends, world.builder.was_reset), ([End.CLIENT_LOST], True))

        async def by_builder(world):
            ends = self.ends(world)
            world.relay.start(b"")
            world.builder.reset()
            await world.until(lambda: ends and world.client.lost)
            self.assertEqual((ends, world.client.was_reset), ([End.BUILDER_LOST], True))

        return self.run_in_world(by_client, by_builder)

    def test_reset_while_the_reader_is_stalled(self):
        """A sender's reset is noticed although its reader does not read, so that nobody reads from it."""

        async def scenario(world):
            ends = self.ends(world)
            world.builder.transport.pauseProducing()
            world.relay.start(b"")
            world.client.send(b"x" * 20_000_000)
            await world.until(lambda: world.relay.bytes_up > 0 and self.stalled(world))
            world.client.reset()
            await world.until(lambda: ends)
            self.assertEqual(ends, [End.CLIENT_LOST])

        return self.run_in_world(scenario)

    def test_sending_to_one_that_has_gone(self):
        """Bytes for a side that has closed end the relay, with a reset for the one that sends them."""

        async def scenario(world):
            ends = self.ends(world)
            world.relay.start(b"")
            world.builder.hang_up()
            await world.until(lambda: world.client.saw_end)
            world.client.send(b"x" * 1_000_000)
            await world.until(lambda: ends and world.client.lost)
            self.assertEqual((ends, world.client.was_reset), ([End.BUILDER_LOST], True))

        return self.run_in_world(scenario)

    def test_reset_after_a_half_close(self):
        """A reset by a side that had finished is noticed, although nobody reads from it any more."""

        async def scenario(world):
            ends = self.ends(world)
            world.relay.start(b"")
            world.client.finish()
            await world.until(lambda: world.builder.saw_end)
            world.client.reset()
            await world.until(lambda: ends)
            world.builder.send(b"too late")
            await world.until(lambda: world.builder.lost)
            self.assertEqual((ends, world.builder.was_reset), ([End.CLIENT_LOST], True))

        return self.run_in_world(scenario)

    def test_a_reader_that_stalls_stalls_its_sender_only(self):
        """What one side does not read is not read from the other; the other direction goes on."""

        async def scenario(world):
            world.builder.transport.pauseProducing()
            world.relay.start(b"")
            world.client.send(b"x" * 50_000_000)
            await world.until(lambda: self.stalled(world))
            self.assertLess(world.relay.bytes_up, 49_000_000)
            world.builder.send(b"y" * 1_000_000)
            await world.until(lambda: len(world.client.received) == 1_000_000)

        return self.run_in_world(scenario)

    def test_cut(self):
        """Cutting resets both sides."""

        async def scenario(world):
            ends = self.ends(world)
            world.relay.start(b"")
            world.relay.cut()
            await world.until(lambda: ends and world.client.lost and world.builder.lost)
            self.assertEqual(ends, [End.CUT])
            self.assertEqual((world.client.was_reset, world.builder.was_reset), (True, True))

        return self.run_in_world(scenario)

    def stalled(self, world):
        """Tell whether the client's leg is paused."""
        raise NotImplementedError


class MemoryRelayTests(RelayContract, SynchronousTestCase):
    """The contract, on the double."""

    def run_in_world(self, *scenarios):
        """Run each scenario in a fresh world, and see that nothing is left."""
        for scenario in scenarios:
            world = MemoryWorld()
            self.successResultOf(Deferred.fromCoroutine(scenario(world)))
            self.successResultOf(Deferred.fromCoroutine(world.close()))
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def stalled(self, world):
        """Tell whether the client's leg is paused."""
        return world.legs[0].transport.paused


class SocketRelayTests(RelayContract, TestCase):
    """The contract, on loopback, with the relay that copies."""

    world = SocketWorld

    def run_in_world(self, *scenarios):
        """Run each scenario in a fresh world."""
        return Deferred.fromCoroutine(self._run_all(scenarios))

    async def _run_all(self, scenarios):
        from twisted.internet import reactor  # noqa: PLC0415  # the one that trial runs

        for scenario in scenarios:
            world = self.world(reactor)
            await world.open()
            try:
                await scenario(world)
            finally:
                await world.close()

    def stalled(self, world):
        """Tell whether the reactor has ceased to read from the client's leg."""
        return world.legs[0].transport not in world.reactor.getReaders()


class SpliceRelayTests(SocketRelayTests):
    """The contract, on loopback, with the relay that splices."""

    if not CAN_SPLICE:
        skip = "this system has no splice"
    world = SpliceWorld

    def stalled(self, world):
        """Tell whether something is in flight that the builder does not take."""
        return world.relay._up.stuck
