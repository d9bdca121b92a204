"""Tests of what only the splicing relay has: pipes and their budget, shares and turns, borrowed sockets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import resource
import select
import socket
import struct
from errno import EMFILE, ENFILE
from itertools import count

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bkscaler.relay.bare import bare_leg
from bkscaler.relay.flow import BUFFER_BYTES, SHARE_BYTES
from bkscaler.relay.leg import Parked
from bkscaler.relay.pair import End
from bkscaler.relay.pipes import KEPT_COUNT, LARGE_BYTES, PipePool
from bkscaler.relay.poller import TURN_S, Poller
from bkscaler.relay.splice import CAN_SPLICE, SpliceRelay, SpliceWorks
from bkscaler.relay.stalls import Stalls
from bkscaler.test.relay_worlds import SpliceWorld, descriptors
from bkscaler.test.test_relay_sockets import socket_pair


class PipePoolTests(SynchronousTestCase):
    """Lending pipes."""

    if not CAN_SPLICE:
        skip = "this system has no splice"

    def pool(self, **limits) -> PipePool:
        """Make a pool that must be empty in the end."""
        pool, before = PipePool(**limits), descriptors()
        self.addCleanup(lambda: self.assertEqual((len(pool), descriptors()), (0, before)))
        self.addCleanup(pool.close)
        return pool

    def test_large_then_small(self):
        """The first pipes are large, later ones small, and in the end there are none."""
        pool = self.pool(large_count=2, limit_count=4)
        pipes = [pool.borrow() for _ in range(5)]
        sizes = [pipe.size_bytes for pipe in pipes if pipe]
        self.assertEqual(sizes[:2], [LARGE_BYTES] * 2)
        self.assertLess(max(sizes[2:]), LARGE_BYTES)
        self.assertIsNone(pipes[4])
        for pipe in pipes[:4]:
            pool.discard(pipe)

    def test_used_again(self):
        """A pipe that came back is lent again; only a few are kept."""
        pool = self.pool()
        pipe = pool.borrow()
        pool.give_back(pipe)
        self.assertIs(pool.borrow(), pipe)
        pool.give_back(pipe)
        pipes = [pool.borrow() for _ in range(KEPT_COUNT + 3)]
        for each in pipes:
            pool.give_back(each)
        self.assertEqual(len(pool), KEPT_COUNT)

    def test_a_large_one_makes_room(self):
        """When a large pipe is closed the next one may be large again."""
        pool = self.pool(large_count=1)
        pool.discard(pool.borrow())
        pipe = pool.borrow()
        self.assertEqual(pipe.size_bytes, LARGE_BYTES)
        pool.give_back(pipe)

    def test_few_descriptors(self):
        """Where descriptors are few there are few pipes, so that three in four are left to connections."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, hard))
        try:
            pool = PipePool()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        pipes = [pool.borrow() for _ in range(11)]
        self.assertEqual([pipe is None for pipe in pipes], [False] * 10 + [True])
        for pipe in pipes[:10]:
            pool.discard(pipe)

    def test_size_refused(self):
        """Where the system refuses the size, the pipe is as large as it is."""

        def refuse(descriptor, command, *value):
            if value:
                raise PermissionError
            return 8192

        self.patch(fcntl, "fcntl", refuse)
        pool = self.pool()
        pipe = pool.borrow()
        self.assertEqual(pipe.size_bytes, 8192)
        pool.discard(pipe)

    def test_no_descriptors(self):
        """When the process or the system has no descriptors left there is no pipe, and no error."""
        pool, make = self.pool(), os.pipe2
        for number in (EMFILE, ENFILE):

            def refuse(flags, number=number):
                raise OSError(number, os.strerror(number))

            self.patch(os, "pipe2", refuse)
            self.assertIsNone(pool.borrow())
        self.patch(os, "pipe2", make)
        pool.give_back(pool.borrow())


class PlayedReactor:
    """What a poller asks of a reactor; delayed calls wait until the test turns it."""

    def __init__(self):
        self.now_s = 0.0
        self.calls = []

    def seconds(self):
        """Give the time."""
        return self.now_s

    def callLater(self, _delay_s, function):
        """Remember it."""
        self.calls.append(function)

    def addReader(self, _reader):
        """Do nothing."""

    removeReader = addReader

    def turn(self):
        """Make the calls that are due, and not those that they add."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class TurnTests(SynchronousTestCase):
    """Who has more to do than a turn allows."""

    if not CAN_SPLICE:
        skip = "this system has no epoll"

    def poller(self):
        """Make one that listens to something, so that it has its epoll."""
        self.reactor = PlayedReactor()
        poller = Poller(self.reactor)
        self.addCleanup(poller.close)
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, read_end)
        self.addCleanup(os.close, write_end)
        poller.register(read_end, select.EPOLLIN, lambda _: None)
        return poller

    def test_a_turn_ends(self):
        """Work that never ends is interrupted after a turn, so that the reactor gets its chance."""
        poller, calls = self.poller(), []

        def work():
            calls.append(self.reactor.now_s)
            self.reactor.now_s += TURN_S / 4
            poller.call_again(work)

        poller.call_again(work)
        self.assertEqual(calls, [])
        self.reactor.turn()
        self.assertEqual(len(calls), 4)
        self.reactor.turn()
        self.assertEqual(len(calls), 8)

    def test_everybody_in_turn(self):
        """Of those who have more to do, each is called once before anybody is called twice."""
        poller, order = self.poller(), []

        def worker(name):
            def work():
                order.append(name)
                if len(order) < 9:
                    poller.call_again(work)

            return work

        for name in "abc":
            poller.call_again(worker(name))
        self.reactor.turn()
        self.assertEqual("".join(order), "abcabcabcab")


def reset(peer):
    """Reset a connection."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class PlayedRelay:
    """
    A relay without transports, and both its peers, which are sockets that do not block.

    :param works: what all relays share.
    :ivar peers: the client and the builder.
    :ivar ends: how it has ended.
    """

    def __init__(self, works):
        self.peers, self.ends, legs = [], [], []
        for _ in range(2):
            ours, peer = socket_pair()
            for each in (ours, peer):
                each.setblocking(False)
            self.peers.append(peer)
            legs.append(bare_leg(ours, Parked()))
        self.relay = SpliceRelay(*legs, works)
        self.relay.ended.addCallback(self.ends.append)
        self.relay.start(b"")

    def fill(self):
        """Send as many null bytes as are taken; say how many."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                count += self.peers[0].send(bytes(1 << 20))
        return count

    def drain(self):
        """Read everything that has come."""
        data = bytearray()
        with contextlib.suppress(BlockingIOError):
            while True:
                data += self.peers[1].recv(1 << 22)
        return data

    def close(self):
        """End it."""
        self.relay.cut()
        for peer in self.peers:
            peer.close()


class ShareTests(SynchronousTestCase):
    """How much is done before everybody else has had a chance."""

    if not CAN_SPLICE:
        skip = "this system has no splice"

    def test_a_bulk_transfer_and_others(self):
        """In one round a bulk transfer moves a share at most, and everybody else's byte is moved as well."""
        reactor = PlayedReactor()
        reactor.seconds = count(0, TURN_S).__next__  # each round is as long as a turn may be
        poller, pipes = Poller(reactor), PipePool()
        works = SpliceWorks(poller=poller, pipes=pipes, stalls=Stalls(Clock()))
        bulk, *others = [PlayedRelay(works) for _ in range(4)]
        moved = []
        for _ in range(30):
            bulk.fill()
            for other in others:
                other.peers[0].send(b"x")
            before = bulk.relay.bytes_up
            poller.doRead()
            moved.append(bulk.relay.bytes_up - before)
            self.assertEqual([other.drain() for other in others], [b"x"] * 3)
            bulk.drain()
        for each in (bulk, *others):
            each.close()
        pipes.close()
        poller.close()
        once = SHARE_BYTES + LARGE_BYTES + BUFFER_BYTES  # a share ends with the pipeful that reaches it
        self.assertLess(max(moved), 2 * once)  # once for the event, and once in turn
        self.assertGreater(max(moved), SHARE_BYTES // 2)
        self.assertEqual(len(pipes), 0)

    def test_what_is_kept_is_not_mixed(self):
        """What a connection without a pipe keeps for its reader is its own, whatever others move."""
        poller, pipes = Poller(PlayedReactor()), PipePool(limit_count=0)
        works = SpliceWorks(poller=poller, pipes=pipes, stalls=Stalls(Clock()))
        stalled, other = PlayedRelay(works), PlayedRelay(works)
        sent = 0
        while more := stalled.fill():
            sent += more
            poller.doRead()
        other.peers[0].send(b"x" * 60_000)
        poller.doRead()
        self.assertEqual(other.drain(), b"x" * 60_000)
        received = bytearray()
        while more := stalled.drain():
            received += more
            poller.doRead()
        for each in (stalled, other):
            each.close()
        poller.close()
        self.assertTrue(received == bytes(sent))


class RaceTests(SynchronousTestCase):
    """What happens to a connection between the poller's look at it and the relay's."""

    if not CAN_SPLICE:
        skip = "this system has no splice"

    def lose(self, peer, *, sent, finished=False):
        """
        Have one side reset its connection when the relay is about to be told of the client's bytes.

        :param peer: 0 for the client, 1 for the builder.
        :param sent: how many bytes the client has sent.
        :param finished: whether that side has finished before, and the relay knows it.
        :returns: how the relay has ended.
        """
        reactor = PlayedReactor()
        poller, pipes = Poller(reactor), PipePool()
        played = PlayedRelay(SpliceWorks(poller=poller, pipes=pipes, stalls=Stalls(Clock())))
        if finished:
            played.peers[peer].shutdown(socket.SHUT_WR)
            poller.doRead()
        read_end, write_end = os.pipe()
        poller.register(read_end, select.EPOLLIN, lambda _: reset(played.peers[peer]))
        os.write(write_end, b"now")  # told first, as it is so first
        played.peers[0].send(bytes(sent))
        poller.doRead()
        reactor.turn()
        for descriptor in (read_end, write_end):
            os.close(descriptor)
        played.close()
        pipes.close()
        poller.close()
        self.assertEqual(len(pipes), 0)
        return played.ends

    def test_reading_from_one_that_was_reset(self):
        """A reset that shows itself when bytes are read is the client's."""
        self.assertEqual(self.lose(0, sent=1), [End.CLIENT_LOST])
        self.assertEqual(self.lose(0, sent=100_000), [End.CLIENT_LOST])

    def test_writing_to_one_that_was_reset(self):
        """A reset that shows itself when bytes are written (ECONNRESET) is the builder's."""
        self.assertEqual(self.lose(1, sent=1), [End.BUILDER_LOST])
        self.assertEqual(self.lose(1, sent=100_000), [End.BUILDER_LOST])

    def test_broken_pipe(self):
        """So is one of a builder that had finished before (EPIPE)."""
        self.assertEqual(self.lose(1, sent=1, finished=True), [End.BUILDER_LOST])
        self.assertEqual(self.lose(1, sent=100_000, finished=True), [End.BUILDER_LOST])


class ScarcityTests(TestCase):
    """What the relay does on loopback when pipes are scarce."""

    if not CAN_SPLICE:
        skip = "this system has no splice"

    def in_world(self, scenario, **limits):
        """Run a scenario in a fresh world."""
        return Deferred.fromCoroutine(self._in_world(scenario, PipePool(**limits)))

    async def _in_world(self, scenario, pipes):
        world = SpliceWorld(pipes)
        await world.open()
        world.start()
        try:
            await scenario(world)
        finally:
            await world.close()
            pipes.close()
        self.assertEqual(len(pipes), 0)

    async def moves(self, world):
        """See that a lot arrives unchanged."""
        data = random.Random(10).randbytes(5_000_000)
        world.client.send(data)
        await world.until(lambda: len(world.builder.received) == len(data))
        self.assertTrue(world.builder.received == data)

    def test_without_pipes(self):
        """When no pipe can be had, bytes are copied: the client never notices."""
        return self.in_world(self.moves, limit_count=0)

    def test_small_pipes(self):
        """With small pipes everything arrives as well."""
        return self.in_world(self.moves, large_count=0)

    def test_descriptors_run_out(self):
        """When there are no descriptors left bytes are copied, and when there are some again, spliced."""

        async def scenario(world):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                await self.moves(world)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            self.assertEqual(len(world.pipes), 0)
            world.builder.send(bytes(5_000_000))
            await world.until(lambda: len(world.client.received) == 5_000_000)
            self.assertEqual(len(world.pipes), 1)

        return self.in_world(scenario)

    def test_idle_owns_nothing(self):
        """A connection with nothing in flight owns no pipe, whatever it has moved before."""

        async def scenario(world):
            await self.moves(world)
            self.assertEqual(len(world.pipes), 1)
            world.pipes.close()  # those that are not lent
            self.assertEqual(len(world.pipes), 0)

        return self.in_world(scenario)

    def test_what_was_in_flight_reaches_nobody(self):
        """Bytes that were in a pipe when their connection was lost are not given to the next one."""

        async def one_by_one():
            pipes = PipePool(limit_count=1)
            for stalls in (True, False):
                world = SpliceWorld(pipes)
                await world.open()
                world.start()
                if stalls:
                    world.builder.transport.pauseProducing()
                    world.client.send(b"secret" * 4_000_000)
                    await world.until_stalled(world.client)
                    self.assertEqual(len(pipes), 1)
                    world.builder.reset()
                    await world.until(lambda world=world: world.client.lost)
                else:
                    await self.moves(world)
                    self.assertEqual(len(pipes), 1)
                await world.close()
            pipes.close()

        return Deferred.fromCoroutine(one_by_one())

    def test_more_stalled_readers_than_pipes(self):
        """Readers that stall beyond the pipes there are keep within them, lose nothing and block nobody."""

        async def many():
            pipes = PipePool(large_count=1, limit_count=4)
            worlds = [SpliceWorld(pipes) for _ in range(12)]
            for world in worlds:
                await world.open()
                world.builder.transport.pauseProducing()
                world.start()
                world.client.send(b"x" * 8_000_000)
            try:
                for world in worlds:
                    await world.until_stalled(world.client)
                self.assertEqual(len(pipes), 4)
                worlds[0].builder.send(b"y" * 100_000)
                await worlds[0].until(lambda: len(worlds[0].client.received) == 100_000)
                for world in worlds:
                    world.builder.transport.resumeProducing()
                await worlds[-1].until(lambda: all(len(w.builder.received) == 8_000_000 for w in worlds))
                pipes.close()
                self.assertEqual(len(pipes), 0)
            finally:
                for world in worlds:
                    await world.close()

        return Deferred.fromCoroutine(many())
