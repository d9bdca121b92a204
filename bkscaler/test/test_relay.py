"""
Tests of what joined connections do with bytes; of how they end, see ``test_relay_ends``.

Everything that a relay promises is in a contract, and its heirs run it over :mod:`bkscaler.test.flow`, which
shows that the double behaves as TCP does, and over loopback with each relay.
"""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.relay.flow import BUFFER_BYTES, SHARE_BYTES
from bkscaler.relay.hangups import Deaf
from bkscaler.relay.leg import Leg, Parked
from bkscaler.relay.pair import CopyRelay, End
from bkscaler.relay.pipes import LARGE_BYTES
from bkscaler.relay.stalls import Stalls
from bkscaler.test.relay_worlds import BareCase, CopyCase, MemoryCase, SpliceCase

AROUND = [
    size + more
    for size in (BUFFER_BYTES, 2 * BUFFER_BYTES, LARGE_BYTES, SHARE_BYTES, SHARE_BYTES + LARGE_BYTES)
    for more in (-1, 0, 1)
]
"""Sizes at which a relay does something else than before."""


class BytesContract:
    """What a relay does with bytes, whatever it is made of."""

    def test_both_ways(self):
        """Bytes arrive in order and unchanged, in both directions at once, whatever the chunks."""

        async def scenario(world):
            chance = random.Random(7)
            up, down = chance.randbytes(3_000_000), chance.randbytes(3_000_000)
            world.start()
            places = {world.client: 0, world.builder: 0}
            while places[world.client] < len(up) or places[world.builder] < len(down):
                for peer, data in ((world.client, up), (world.builder, down)):
                    size = chance.choice((1, 1, 17, 1000, 65_535, 65_536, 65_537, 300_000))
                    peer.send(data[places[peer] : places[peer] + size])
                    places[peer] += size
                await world.turn()
            await world.until(lambda: len(world.builder.received) == len(up))
            await world.until(lambda: len(world.client.received) == len(down))
            self.assertEqual((bytes(world.builder.received), bytes(world.client.received)), (up, down))
            self.assertEqual((world.relay.bytes_up, world.relay.bytes_down), (len(up), len(down)))

        return self.run_in_world(scenario)

    def test_every_size(self):
        """What comes alone arrives whole without more behind it, whether there was nothing else or a lot."""

        async def scenario(world):
            data = random.Random(8).randbytes(max(AROUND))
            world.start()
            for sender, reader in ((world.client, world.builder), (world.builder, world.client)):
                for size in (1, 2, *AROUND):
                    reader.received.clear()
                    sender.send(data[:size])
                    await world.until(lambda reader=reader, size=size: len(reader.received) == size)
                    self.assertTrue(reader.received == data[:size])
            sums = 1 + 2 + sum(AROUND)
            self.assertEqual((world.relay.bytes_up, world.relay.bytes_down), (sums, sums))

        return self.run_in_world(scenario)

    def test_nothing(self):
        """A connection on which not a byte is said is joined and ended like any other."""

        async def scenario(world):
            ends = []
            world.relay.ended.addCallback(ends.append)
            world.start()
            world.client.hang_up()
            await world.until(lambda: world.builder.saw_end)
            world.builder.hang_up()
            await world.until(lambda: ends)
            self.assertEqual((ends, world.relay.bytes_up, world.relay.bytes_down), ([End.COMPLETED], 0, 0))
            self.assertEqual(bytes(world.client.received + world.builder.received), b"")

        return self.run_in_world(scenario)

    def test_early_bytes_come_first(self):
        """What either side sent before it was joined comes before what it sends later, and counts."""

        async def scenario(world):
            world.client.send(b"late")
            world.builder.send(b"later")
            await world.turn()
            world.start(b"early ", b"greeting ")
            await world.until(lambda: bytes(world.builder.received) == b"early late")
            await world.until(lambda: bytes(world.client.received) == b"greeting later")
            self.assertEqual((world.relay.bytes_up, world.relay.bytes_down), (10, 14))

        return self.run_in_world(scenario)

    def test_slow_writer(self):
        """Bytes that come one by one are passed on one by one."""

        async def scenario(world):
            world.start()
            for sender, reader in ((world.client, world.builder), (world.builder, world.client)):
                for number in range(100):
                    sender.send(bytes([number]))
                    await world.until(lambda reader=reader, number=number: len(reader.received) > number)
                self.assertEqual(bytes(reader.received), bytes(range(100)))

        return self.run_in_world(scenario)

    def test_slow_reader(self):
        """One who reads a little now and then gets everything in order, and the end behind it."""

        async def scenario(world):
            data = random.Random(9).randbytes(6_000_000)
            world.start()
            for sender, reader in ((world.client, world.builder), (world.builder, world.client)):
                reader.transport.pauseProducing()
                reader.transport.bufferSize = 30_000
                sender.send(data)
                sender.finish()
                await world.until_stalled(sender)
                while len(reader.received) < 3_000_000:
                    before = len(reader.received)
                    reader.transport.resumeProducing()
                    await world.until(lambda reader=reader, before=before: len(reader.received) > before)
                    reader.transport.pauseProducing()
                    await world.turn()
                reader.transport.resumeProducing()
                await world.until(lambda reader=reader: reader.saw_end)
                self.assertTrue(reader.received == data)
            self.assertEqual((world.relay.bytes_up, world.relay.bytes_down), (len(data), len(data)))

        return self.run_in_world(scenario)

    def test_a_reader_that_stalls_stalls_its_sender_only(self):
        """What one side does not read is not read from the other; the other direction goes on."""

        async def scenario(world):
            world.builder.transport.pauseProducing()
            world.start()
            world.client.send(b"x" * 50_000_000)
            await world.until_stalled(world.client)
            self.assertLess(world.relay.bytes_up, 49_000_000)
            world.builder.send(b"y" * 1_000_000)
            await world.until(lambda: len(world.client.received) == 1_000_000)

        return self.run_in_world(scenario)


class TransportContract:
    """What a relay makes of transports that have been used before."""

    def test_bytes_written_before(self):
        """What was still in a transport's buffer when it was joined comes before what the relay sends."""

        async def scenario(world):
            world.client.transport.pauseProducing()
            world.legs[0].write(b"1" * 9_000_000)
            world.start(b"up", b"2" * 100)
            world.builder.send(b"3" * 100)
            await world.turn()
            world.client.transport.resumeProducing()
            await world.until(lambda: len(world.client.received) == 9_000_200)
            self.assertEqual(bytes(world.client.received[8_999_999:]), b"1" + b"2" * 100 + b"3" * 100)
            await world.until(lambda: bytes(world.builder.received) == b"up")
            self.assertEqual((world.relay.bytes_up, world.relay.bytes_down), (2, 200))

        return self.run_in_world(scenario)

    def test_lost_before_it_was_flushed(self):
        """A client that is lost while its transport is being flushed ends the relay."""

        async def scenario(world):
            ends = []
            world.relay.ended.addCallback(ends.append)
            world.client.transport.pauseProducing()
            world.legs[0].write(b"1" * 9_000_000)
            world.start()
            world.client.reset()
            await world.until(lambda: ends and world.builder.lost)
            self.assertEqual(ends, [End.CLIENT_LOST])

        return self.run_in_world(scenario)

    def test_client_finished_before(self):
        """A client that finished before it was joined has its bytes and its end passed on."""

        async def scenario(world):
            world.legs[0].transport.resumeProducing()
            world.client.finish()
            await world.until(lambda: world.legs[0].has_finished)
            world.start(b"question")
            await world.until(lambda: world.builder.saw_end)
            self.assertEqual(bytes(world.builder.received), b"question")

        return self.run_in_world(scenario)


class MemoryRelayTests(BytesContract, TransportContract, MemoryCase):
    """On the double."""


class CopyRelayTests(BytesContract, TransportContract, CopyCase):
    """On loopback, with the relay that copies."""


class SpliceRelayTests(BytesContract, TransportContract, SpliceCase):
    """On loopback, with the relay that splices."""


class BareRelayTests(BytesContract, BareCase):
    """On loopback, with the relay that splices, and no transports."""


class Swallowing:
    """A transport that takes whatever comes."""

    def write(self, data):
        """Take it."""

    def resumeProducing(self):
        """Do nothing."""

    def registerProducer(self, producer, streaming):
        """Do nothing."""


class CountTests(SynchronousTestCase):
    """Counting far."""

    def test_more_than_32_bits(self):
        """A relay that copies counts beyond what 32 bits hold, to the byte."""
        legs = [Leg(Parked()), Leg(Parked())]
        for leg in legs:
            leg.transport = Swallowing()
        relay = CopyRelay(*legs, hangups=Deaf(), stalls=Stalls(Clock()))
        relay.start(b"early", b"greeting")
        data = bytes(1 << 24)
        for _ in range(2**32 // len(data)):
            legs[0].dataReceived(data)
            legs[1].dataReceived(data)
        legs[1].dataReceived(b"more")
        self.assertEqual((relay.bytes_up, relay.bytes_down), (2**32 + 5, 2**32 + 12))
