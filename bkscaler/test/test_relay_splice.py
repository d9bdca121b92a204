"""Tests of what only the splicing relay has: pipes and their budget, shares and turns, borrowed sockets."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import select
import weakref

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bkscaler.relay.pair import End
from bkscaler.relay.pipes import KEPT_COUNT, LARGE_BYTES, PipePool
from bkscaler.relay.poller import TURN_S, Poller
from bkscaler.relay.splice import CAN_SPLICE
from bkscaler.test.test_relay import SpliceWorld


def descriptors() -> set[str]:
    """List what this process has open."""
    return set(os.listdir("/proc/self/fd"))


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
        """Without descriptors there is no pipe, and no error."""
        pool = self.pool()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            pipe = pool.borrow()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertIsNone(pipe)


class MemoryTests(TestCase):
    """What is left of a relay that is over."""

    if not CAN_SPLICE:
        skip = "this system has no splice"

    async def test_nothing_is_left(self):
        """Nothing of a relay waits for the garbage collector, however it has ended."""
        from twisted.internet import reactor  # noqa: PLC0415  # installed only when it is needed

        gc.disable()
        self.addCleanup(gc.enable)
        for orderly in (True, False):
            world = SpliceWorld(reactor)
            await world.open()
            world.relay.start(b"early")
            await world.until(lambda world=world: world.builder.received == b"early")
            if orderly:
                for peer in (world.client, world.builder):
                    peer.transport.loseWriteConnection()
                await world.until(lambda world=world: world.relay.ended.called)
            await world.close()
            relay = weakref.ref(world.relay)
            world.relay = None
            self.assertIsNone(relay())


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


class LimitedWorld(SpliceWorld):
    """A world with a pool of its own."""

    def __init__(self, reactor, pipes):
        super().__init__(reactor)
        self.pipes = pipes


class SpliceTests(TestCase):
    """The relay on loopback."""

    if not CAN_SPLICE:
        skip = "this system has no splice"

    def in_world(self, scenario, **limits):
        """Run a scenario in a fresh world."""
        return Deferred.fromCoroutine(self._in_world(scenario, PipePool(**limits)))

    async def _in_world(self, scenario, pipes):
        from twisted.internet import reactor  # noqa: PLC0415  # the one that trial runs

        world = LimitedWorld(reactor, pipes)
        await world.open()
        try:
            await scenario(world)
        finally:
            await world.close()

    def test_without_pipes(self):
        """When no pipe can be had, bytes are copied: the client never notices."""

        async def scenario(world):
            data = os.urandom(5_000_000)
            world.relay.start(b"")
            world.client.send(data)
            await world.until(lambda: len(world.builder.received) == len(data))
            self.assertEqual(bytes(world.builder.received), data)

        return self.in_world(scenario, limit_count=0)

    def test_small_pipes(self):
        """With small pipes everything arrives as well."""

        async def scenario(world):
            data = os.urandom(5_000_000)
            world.relay.start(b"")
            world.builder.send(data)
            await world.until(lambda: len(world.client.received) == len(data))
            self.assertEqual(bytes(world.client.received), data)

        return self.in_world(scenario, large_count=0)

    def test_idle_owns_nothing(self):
        """A connection with nothing in flight owns no pipe, whatever it has moved before."""

        async def scenario(world):
            world.relay.start(b"")
            world.client.send(b"x" * 10_000_000)
            await world.until(lambda: len(world.builder.received) == 10_000_000)
            self.assertIsNone(world.relay._up._pipe)

        return self.in_world(scenario)

    def test_bytes_written_before(self):
        """What was still in a transport's buffer when it was joined comes before what the relay sends."""

        async def scenario(world):
            world.client.transport.pauseProducing()
            world.legs[0].write(b"1" * 9_000_000)
            world.relay.start(b"up", b"2" * 100)
            world.client.transport.resumeProducing()
            await world.until(lambda: len(world.client.received) == 9_000_100)
            self.assertEqual(bytes(world.client.received[8_999_999:]), b"1" + b"2" * 100)
            await world.until(lambda: bytes(world.builder.received) == b"up")

        return self.in_world(scenario)

    def test_lost_before_it_was_flushed(self):
        """A client that is lost while its transport is being flushed ends the relay."""

        async def scenario(world):
            ends = []
            world.relay.ended.addCallback(ends.append)
            world.client.transport.pauseProducing()
            world.legs[0].write(b"1" * 9_000_000)
            world.relay.start(b"")
            world.client.reset()
            await world.until(lambda: ends and world.builder.lost)
            self.assertEqual(ends, [End.CLIENT_LOST])

        return self.in_world(scenario)

    def test_many_stalled_readers(self):
        """Readers that stall in great number, beyond the pipes there are, lose nothing and block nobody."""

        async def many():
            from twisted.internet import reactor  # noqa: PLC0415  # the one that trial runs

            pipes = PipePool(large_count=2, limit_count=8)
            worlds = [LimitedWorld(reactor, pipes) for _ in range(30)]
            for world in worlds:
                await world.open()
                world.builder.transport.pauseProducing()
                world.relay.start(b"")
                world.client.send(b"x" * 8_000_000)
            try:
                await worlds[-1].until(lambda: all(world.relay._up.stuck for world in worlds))
                self.assertLessEqual(len(pipes), 8)
                worlds[0].builder.send(b"y" * 100_000)
                await worlds[0].until(lambda: len(worlds[0].client.received) == 100_000)
                for world in worlds:
                    world.builder.transport.resumeProducing()
                await worlds[-1].until(lambda: all(len(w.builder.received) == 8_000_000 for w in worlds))
            finally:
                for world in worlds:
                    await world.disconnect()
            pipes.close()
            self.assertEqual(len(pipes), 0)

        return Deferred.fromCoroutine(many())

    def test_nothing_is_left(self):
        """A few hundred connections, ended in every way, leave no descriptor and no delayed call behind."""

        async def many():
            from twisted.internet import reactor  # noqa: PLC0415  # the one that trial runs

            for number in range(100):
                world = SpliceWorld(reactor)
                await world.open()
                ends = []
                world.relay.ended.addCallback(ends.append)
                world.relay.start(b"early")
                end = number % 4
                if end == 0:
                    world.client.finish()
                    world.builder.finish()
                elif end == 1:
                    world.client.reset()
                elif end == 2:
                    world.client.send(b"x" * 500_000)
                    world.builder.reset()
                else:
                    world.relay.cut()
                await world.until(lambda ends=ends: ends)
                await world.close()

        async def twice():
            await many()  # what the reactor opens for itself, once and for all, is open now
            before = descriptors()
            await many()
            self.assertEqual(descriptors(), before)

        return Deferred.fromCoroutine(twice())
