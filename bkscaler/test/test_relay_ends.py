"""
Tests of how joined connections end, on the double and on real sockets alike; see ``test_relay``.

What every end has in common is looked at by the cases themselves: both legs are told once, and nothing of
the connection is left.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.relay.bare import BareTransport
from bkscaler.relay.leg import Parked
from bkscaler.relay.pair import End
from bkscaler.test.relay_worlds import BareCase, CopyCase, CountedLeg, MemoryCase, SpliceCase
from bkscaler.test.test_relay_sockets import socket_pair


def ends_of(world):
    """Record how the relay of a world ends."""
    ends = []
    world.relay.ended.addCallback(ends.append)
    return ends


def sides(world):
    """Give both orders of the sides, each with what is said when the first one of them is lost."""
    return (
        (world.client, world.builder, End.CLIENT_LOST),
        (world.builder, world.client, End.BUILDER_LOST),
    )


class EndsContract:
    """How a relay ends, whatever it is made of."""

    def on_either_side(self, scenario):
        """Run a scenario twice: with the client as the first side, and with the builder as the first side."""

        def by(side):
            async def play(world):
                await scenario(world, *sides(world)[side])

            return play

        return self.run_in_world(by(0), by(1))

    def test_half_close(self):
        """After one side has finished, the other can still answer; then the relay is complete."""

        async def scenario(world, one, other, _):
            ends = ends_of(world)
            world.start()
            one.send(b"question")
            one.finish()
            await world.until(lambda: other.saw_end)
            self.assertEqual(bytes(other.received), b"question")
            other.send(b"answer")
            await world.until(lambda: bytes(one.received) == b"answer")
            other.hang_up()
            await world.until(lambda: ends)
            self.assertEqual((ends, one.was_reset), ([End.COMPLETED], False))
            self.assertEqual({world.relay.bytes_up, world.relay.bytes_down}, {8, 6})

        return self.on_either_side(scenario)

    def test_both_finish_at_once(self):
        """When both sides finish at the same moment, the relay is complete and nothing is lost."""

        async def scenario(world):
            ends = ends_of(world)
            world.start()
            world.client.send(b"a" * 500_000)
            world.builder.send(b"b" * 500_000)
            world.client.finish()
            world.builder.finish()
            await world.until(lambda: ends)
            await world.until(lambda: len(world.client.received) == len(world.builder.received) == 500_000)
            self.assertEqual(ends, [End.COMPLETED])

        return self.run_in_world(scenario)

    def test_both_close_at_once(self):
        """When both sides close at the same moment and have said everything, the relay is complete."""

        async def scenario(world):
            ends = ends_of(world)
            world.start()
            world.client.send(b"question")
            await world.until(lambda: world.builder.received)
            world.client.hang_up()
            world.builder.hang_up()
            await world.until(lambda: ends)
            self.assertEqual((ends, world.relay.bytes_up), ([End.COMPLETED], 8))

        return self.run_in_world(scenario)

    def test_close_with_bytes_in_flight(self):
        """One who sends a lot and closes has all of it delivered, and the end behind it, however slowly."""

        async def scenario(world, one, other, _):
            ends = ends_of(world)
            other.transport.pauseProducing()
            world.start()
            one.send(b"x" * 8_000_000)
            one.hang_up()
            await world.until_stalled(one)
            self.assertEqual(ends, [])
            other.transport.resumeProducing()
            await world.until(lambda: other.saw_end)
            self.assertEqual(len(other.received), 8_000_000)
            other.hang_up()
            await world.until(lambda: ends)
            self.assertEqual((ends, other.was_reset), ([End.COMPLETED], False))
            self.assertEqual(max(world.relay.bytes_up, world.relay.bytes_down), 8_000_000)

        return self.on_either_side(scenario)

    def test_everything_is_in_flight(self):
        """When one has sent its last byte and closed before the other reads its first, nothing is lost."""

        async def scenario(world, one, other, _):
            other.transport.pauseProducing()
            world.start()
            one.send(b"x" * 60_000)
            one.hang_up()
            await world.until(lambda: one.lost)
            other.transport.resumeProducing()
            await world.until(lambda: other.saw_end)
            self.assertEqual(len(other.received), 60_000)

        return self.on_either_side(scenario)

    def test_reset(self):
        """A reset on one side is a reset on the other, the relay says whose it was, and the counts stay."""

        async def scenario(world, one, other, lost):
            ends = ends_of(world)
            world.start()
            one.send(b"question")
            await world.until(lambda: other.received)
            one.reset()
            await world.until(lambda: ends and other.lost)
            self.assertEqual((ends, other.was_reset), ([lost], True))
            self.assertEqual({world.relay.bytes_up, world.relay.bytes_down}, {8, 0})

        return self.on_either_side(scenario)

    def test_reset_before_the_start(self):
        """A side that was lost just before it was joined ends the relay as one that is lost later."""

        async def scenario(world, one, other, lost):
            ends = ends_of(world)
            one.reset()
            await world.until(lambda: one.lost)
            world.start(b"early", b"greeting")
            await world.until(lambda: ends and other.lost)
            self.assertEqual((ends, other.was_reset), ([lost], True))

        return self.on_either_side(scenario)

    def test_sender_resets_while_its_reader_is_stalled(self):
        """A sender's reset is noticed although its reader does not read, so that nobody reads from it."""

        async def scenario(world, one, other, lost):
            ends = ends_of(world)
            other.transport.pauseProducing()
            world.start()
            one.send(b"x" * 20_000_000)
            await world.until_stalled(one)
            self.assertGreater(max(world.relay.bytes_up, world.relay.bytes_down), 0)
            one.reset()
            await world.until(lambda: ends)
            self.assertEqual(ends, [lost])
            other.transport.resumeProducing()
            await world.until(lambda: other.lost)
            self.assertTrue(other.was_reset)

        return self.on_either_side(scenario)

    def test_stalled_reader_resets(self):
        """A reader that resets what it has not read ends the relay, with a reset for the one that sends."""

        async def scenario(world, one, other, lost):
            ends = ends_of(world)
            one.transport.pauseProducing()
            world.start()
            other.send(b"x" * 20_000_000)
            await world.until_stalled(other)
            one.reset()
            await world.until(lambda: ends and other.lost)
            self.assertEqual((ends, other.was_reset), ([lost], True))

        return self.on_either_side(scenario)

    def test_stalled_reader_closes(self):
        """A reader that closes with bytes unread, which is a reset, ends the relay like one."""

        async def scenario(world, one, other, lost):
            ends = ends_of(world)
            one.transport.pauseProducing()
            world.start()
            other.send(b"x" * 20_000_000)
            await world.until_stalled(other)
            one.hang_up()
            await world.until(lambda: ends and other.lost)
            self.assertEqual((ends, other.was_reset), ([lost], True))

        return self.on_either_side(scenario)

    def test_sending_to_one_that_has_gone(self):
        """Bytes for a side that has closed end the relay, with a reset for the one that sends them."""

        async def scenario(world, one, other, lost):
            ends = ends_of(world)
            world.start()
            one.hang_up()
            await world.until(lambda: other.saw_end)
            other.send(b"x" * 1_000_000)
            await world.until(lambda: ends and other.lost)
            self.assertEqual((ends, other.was_reset), ([lost], True))

        return self.on_either_side(scenario)

    def test_gone_while_others_bytes_come(self):
        """A side that resets while bytes for it are on their way, unheard of yet, ends the relay once."""

        async def scenario(world, one, other, lost):
            ends = ends_of(world)
            world.start()
            for _ in range(3):
                other.send(b"x" * 100_000)
                await world.turn()
            other.send(b"x" * 100_000)
            one.reset()
            await world.until(lambda: ends and other.lost)
            self.assertEqual((ends, other.was_reset), ([lost], True))

        return self.on_either_side(scenario)

    def test_reset_after_a_half_close(self):
        """A reset by a side that had finished is noticed, although nobody reads from it any more."""

        async def scenario(world, one, other, lost):
            ends = ends_of(world)
            world.start()
            one.finish()
            await world.until(lambda: other.saw_end)
            one.reset()
            await world.until(lambda: ends)
            other.send(b"too late")
            await world.until(lambda: other.lost)
            self.assertEqual((ends, other.was_reset), ([lost], True))

        return self.on_either_side(scenario)

    def test_both_reset_at_once(self):
        """When both sides reset at the same moment, one of them is named, once."""

        async def scenario(world):
            ends = ends_of(world)
            world.start()
            world.client.send(b"question")
            await world.until(lambda: world.builder.received)
            world.client.reset()
            world.builder.reset()
            await world.until(lambda: ends)
            self.assertIn(ends, ([End.CLIENT_LOST], [End.BUILDER_LOST]))

        return self.run_in_world(scenario)

    def test_cut(self):
        """Cutting resets both sides, whatever is in flight; a second cut does nothing."""

        async def scenario(world):
            ends = ends_of(world)
            world.builder.transport.pauseProducing()
            world.start()
            world.client.send(b"x" * 20_000_000)
            world.builder.send(b"y")
            await world.until_stalled(world.client)
            await world.until(lambda: world.client.received)
            world.relay.cut()
            world.relay.cut()
            world.builder.transport.resumeProducing()
            await world.until(lambda: ends and world.client.lost and world.builder.lost)
            self.assertEqual(ends, [End.CUT])
            self.assertEqual((world.client.was_reset, world.builder.was_reset), (True, True))

        return self.run_in_world(scenario)


class MemoryRelayTests(EndsContract, MemoryCase):
    """On the double."""


class CopyRelayTests(EndsContract, CopyCase):
    """On loopback, with the relay that copies."""


class SpliceRelayTests(EndsContract, SpliceCase):
    """On loopback, with the relay that splices."""


class BareRelayTests(EndsContract, BareCase):
    """On loopback, with the relay that splices, and no transports."""


class BareTransportTests(SynchronousTestCase):
    """A socket without a transport of Twisted's."""

    def test_told_once(self):
        """It closes and tells its leg once, however often and in whichever ways it is ended."""
        for first in ("close", "abort"):
            ours, peer = socket_pair()
            self.addCleanup(peer.close)
            leg = CountedLeg(Parked())
            transport = BareTransport(ours, leg)
            ways = {
                "close": lambda transport=transport: transport.connectionLost(Failure(ConnectionDone())),
                "abort": transport.abortConnection,
            }
            ways[first]()
            self.assertEqual((leg.losses, leg.is_lost, ours.fileno()), (1, True, -1))
            for way in ways.values():
                way()
            self.assertEqual(leg.losses, 1)
