"""Tests of the life of a client's connection."""

from __future__ import annotations

import gc

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import WakeImpossible
from bkscaler.frontend.dial import BuilderFactory
from bkscaler.frontend.held import HELD_LIMIT_BYTES, HeldClient
from bkscaler.frontend.session import Session
from bkscaler.frontend.sniff import PREFACE
from bkscaler.model import Replica
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay.pair import CopyRelay
from bkscaler.test.flow import WINDOW_BYTES, Peer, connected, settle
from bkscaler.test.proxy import REPLICA, Controls, make_proxy

CLIENT_HELLO = b"\x16\x03\x01\x05\xa8\x01\x00"


class SessionCase(SynchronousTestCase):
    """Every test ends with nothing left: no hold, no session, no delayed call."""

    controls: Controls

    def proxy(self, **settings):
        """Make a proxy that is looked at when the test is over."""
        factory, self.controls = make_proxy(**settings)
        self.addCleanup(self._nothing_left, factory, self.controls)
        return self.controls

    def _nothing_left(self, factory, controls):
        for _ in range(2):  # the second time drops whoever was told why and lingers
            factory.cut_all()
            controls.settle()
        self.assertEqual((len(factory), controls.capacity.holds, controls.capacity.waiters), (0, [], []))
        self.assertEqual([call.func for call in controls.clock.getDelayedCalls()], [])


class SniffTests(SessionCase):
    """Who wakes a builder, and who does not."""

    def test_bytes_wake_at_once(self):
        """The first byte asks for a builder without waiting for the probe grace."""
        proxy = self.proxy()
        proxy.client().send(b"x")
        proxy.settle()
        self.assertEqual(len(proxy.capacity.holds), 1)

    def test_probe(self):
        """A peer that hangs up within the grace without a byte wakes nothing and is called a probe."""
        proxy = self.proxy()
        client = proxy.client()
        proxy.after(0.2)
        client.hang_up()
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.all_names), ([Outcome.PROBE], []))

    def test_probe_by_reset(self):
        """A probe that resets its connection is a probe as well."""
        proxy = self.proxy()
        proxy.client().reset()
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.all_names), ([Outcome.PROBE], []))

    def test_silent_peer_that_stays(self):
        """A silent peer wakes the builder when the grace is over."""
        proxy = self.proxy()
        proxy.client()
        proxy.after(0.24)
        self.assertEqual(proxy.capacity.holds, [])
        proxy.after(0.02)
        self.assertEqual(len(proxy.capacity.holds), 1)

    def test_no_grace(self):
        """With a grace of zero, every connection wakes the builder."""
        proxy = self.proxy(probe_grace_s=0.0)
        proxy.client()
        proxy.settle()
        self.assertEqual(len(proxy.capacity.holds), 1)

    def test_silent_peer_at_an_awake_builder(self):
        """A silent peer is joined to an awake builder after the same grace."""
        proxy = self.proxy()
        proxy.capacity.ready()
        proxy.client()
        proxy.after(0.24)
        self.assertEqual(proxy.dials, [])
        proxy.after(0.02)
        self.assertEqual(proxy.dials, [REPLICA])

    def test_names(self):
        """Each connection's demand has a name of its own, which begins with the proxy's prefix."""
        proxy = self.proxy()
        for _ in range(2):
            proxy.client().send(b"x")
        proxy.settle()
        self.assertEqual(proxy.capacity.holds, ["proxy-1", "proxy-2"])


class HeldTests(SessionCase):
    """Clients that wait."""

    def held(self, data, **settings):
        """Hold one client that has sent something."""
        proxy = self.proxy(**settings)
        client = proxy.client()
        client.send(data)
        proxy.settle()
        return proxy, client

    def test_joined_when_ready(self):
        """A held client is joined when the builder is ready; nothing it sent is lost or reordered."""
        proxy, client = self.held(b"one ")
        client.send(b"two ")
        proxy.settle()
        proxy.capacity.ready()
        proxy.settle()
        client.send(b"three")
        proxy.settle()
        self.assertEqual(bytes(proxy.builders[0].received), b"one two three")

    def test_everybody_is_held(self):
        """All clients that arrive while cold are held and joined, not only the first."""
        proxy = self.proxy()
        clients = [proxy.client() for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        proxy.settle()
        proxy.capacity.ready()
        proxy.settle()
        received = sorted(bytes(builder.received) for builder in proxy.builders)
        self.assertEqual(received, [b"%d" % number for number in range(10)])

    def test_leaving(self):
        """A client whose end means that it has gone gives up its demand at once."""
        for first in (PREFACE, PREFACE[:10], PREFACE + b"\0\0\0\4\0\0\0\0\0", CLIENT_HELLO):
            proxy, client = self.held(first)
            client.finish()
            proxy.settle()
            self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.LEFT_WHILE_HELD], []))
            self.assertTrue(client.was_let_go)

    def test_silent_peer_leaves_after_the_grace(self):
        """A peer that stays silent beyond the grace and then hangs up has left."""
        proxy = self.proxy()
        client = proxy.client()
        proxy.after(1)
        client.hang_up()
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.LEFT_WHILE_HELD], []))

    def test_half_close(self):
        """A client that has asked something and finished is still served."""
        proxy, client = self.held(b"GET / HTTP/1.0\r\n\r\n")
        client.finish()
        proxy.settle()
        self.assertEqual(len(proxy.capacity.holds), 1)
        proxy.capacity.ready()
        proxy.settle()
        builder = proxy.builders[0]
        self.assertTrue(builder.saw_end)
        builder.send(b"answer")
        builder.finish()
        proxy.settle()
        self.assertEqual((bytes(client.received), proxy.outcomes), (b"answer", [Outcome.COMPLETED]))

    def test_reset_while_held(self):
        """A held client that resets its connection has left, whatever it had sent."""
        proxy, client = self.held(b"anything")
        client.reset()
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.LEFT_WHILE_HELD], []))

    def test_reset_after_a_half_close(self):
        """A client that has half-closed and then resets has left, although nobody reads from it."""
        proxy, client = self.held(b"anything")
        client.finish()
        proxy.settle()
        client.reset()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.LEFT_WHILE_HELD])

    def test_bounded(self):
        """What is held of one client is bounded; the rest waits in the kernel and is not lost."""
        proxy, client = self.held(b"x" * 1_000_000)
        left = len(client.transport.unsent)
        held = 1_000_000 - left - len(proxy.transport_of(client).arrived)
        self.assertLessEqual(held, 2 * HELD_LIMIT_BYTES)
        self.assertEqual(len(proxy.transport_of(client).arrived), WINDOW_BYTES)
        proxy.capacity.ready()
        proxy.settle()
        self.assertEqual(len(proxy.builders[0].received), 1_000_000)

    def test_leaving_with_a_full_buffer(self):
        """A client that leaves is noticed at once, also when its transport is paused."""
        proxy, client = self.held(CLIENT_HELLO + b"x" * 200_000)
        self.assertTrue(proxy.transport_of(client).paused)
        client.finish()
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.LEFT_WHILE_HELD], []))

    def test_reset_with_a_full_buffer(self):
        """A reset is noticed at once, also when the client's transport is paused."""
        proxy, client = self.held(b"x" * 200_000)
        client.reset()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.LEFT_WHILE_HELD])

    def test_half_close_with_a_full_buffer(self):
        """A half-close behind a full buffer is served in full."""
        proxy, client = self.held(b"x" * 200_000)
        client.finish()
        proxy.settle()
        proxy.capacity.ready()
        proxy.settle()
        builder = proxy.builders[0]
        self.assertEqual((len(builder.received), builder.saw_end), (200_000, True))

    def test_deadline(self):
        """A client is let go when the builder has not become ready in time, counted from its arrival."""
        proxy, client = self.held(b"x", ready_wait_timeout_s=10.0)
        proxy.after(9.9)
        self.assertEqual(proxy.outcomes, [])
        proxy.after(0.2)
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.NOT_READY_IN_TIME], []))
        self.assertTrue(client.was_let_go)

    def test_cannot_wake(self):
        """A client is let go at once when the cluster says that the builder cannot come."""
        proxy, client = self.held(b"x")
        proxy.capacity.impossible(WakeImpossible("there is no such StatefulSet"))
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.CANNOT_WAKE], []))
        self.assertTrue(client.was_let_go)

    def test_cut_while_held(self):
        """Cutting lets held clients go."""
        proxy, client = self.held(b"x")
        proxy.factory.cut_all()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.SHUTTING_DOWN])
        self.assertTrue(client.was_let_go)


class DialTests(SessionCase):
    """Reaching a builder."""

    def dialling(self, **settings):
        """Let one client's dials be refused."""
        proxy = self.proxy(**settings)
        proxy.refuse = True
        proxy.capacity.ready()
        client = proxy.client()
        client.send(b"x")
        proxy.settle()
        return proxy, client

    def test_refused_dial_is_repeated(self):
        """A dial refused by a builder that is ready is repeated, a little later each time, until it works."""
        proxy, _ = self.dialling()
        counts = [len(proxy.dials)]
        for seconds in (0.05, 0.1, 0.2):
            proxy.after(seconds)
            counts.append(len(proxy.dials))
        self.assertEqual(counts, [1, 2, 3, 4])
        proxy.refuse = False
        proxy.after(0.4)
        self.assertEqual(bytes(proxy.builders[0].received), b"x")

    def test_refused_until_the_deadline(self):
        """A builder that is ready and always refuses has an outcome of its own."""
        proxy, _ = self.dialling(ready_wait_timeout_s=5.0)
        proxy.after(1)
        proxy.after(5)
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.BUILDER_REFUSED], []))

    def test_next_dial_asks_which_replica_is_ready(self):
        """After a failed dial the replica is asked for anew: it may be another one."""
        proxy, _ = self.dialling()
        other = Replica(ordinal=0, name="buildkitd-0", uid="uid-1", ip="127.0.0.3")
        proxy.capacity.replica = other
        proxy.after(0.05)
        self.assertEqual(proxy.dials, [REPLICA, other])

    def test_refused_then_not_ready(self):
        """When the replica that refused is no longer ready, the deadline says that none was ready."""
        proxy, _ = self.dialling(ready_wait_timeout_s=5.0)
        proxy.capacity.replica = None
        proxy.after(0.05)
        proxy.after(5)
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])

    def test_dial_that_comes_too_late(self):
        """A connection that comes about although its client has left meanwhile is closed at once."""
        factory = BuilderFactory()
        factory.arrived.cancel()
        self.failureResultOf(factory.arrived)
        clock, builder = Clock(), Peer()
        connected(clock, factory.buildProtocol(None), builder)
        settle(clock)
        self.assertTrue(builder.was_reset)

    def test_leaving_while_dialling(self):
        """A client that leaves while its builder is being dialled ends the dial."""
        proxy = self.proxy()
        proxy.leave_open = True
        proxy.capacity.ready()
        client = proxy.client()
        client.send(PREFACE)
        proxy.settle()
        client.finish()
        proxy.settle()
        self.assertEqual(proxy.ended_dials, [REPLICA])
        self.assertEqual(proxy.outcomes, [Outcome.LEFT_WHILE_HELD])

    def test_unexpected_failure(self):
        """A bug ends the connection with an outcome, its demand given back, and a traceback in the log."""
        proxy = self.proxy()
        client = proxy.client()
        client.send(b"x")
        proxy.settle()
        proxy.capacity.impossible(ZeroDivisionError())
        proxy.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.INTERNAL_ERROR], []))


class ReportTests(SessionCase):
    """What is told of connections."""

    def test_alive(self):
        """Connections that have not ended are listed, oldest first, with age, bytes and failed dials."""
        proxy = self.proxy()
        proxy.refuse = True
        proxy.capacity.ready()
        proxy.client().send(b"hello")
        proxy.settle()
        proxy.after(0.05)
        proxy.client()
        (first, second) = proxy.factory.connections()
        self.assertEqual((first.waited_s, first.joined_s, first.failed_dials), (0.05, None, 2))
        self.assertIn("pod buildkitd-0", first.why)
        self.assertEqual((second.waited_s, second.bytes_up), (0.0, 0))
        proxy.refuse = False
        proxy.after(0.1)
        proxy.after(3)
        joined = proxy.factory.connections()[0]
        self.assertEqual((joined.joined_s, joined.bytes_up, joined.why), (3, 5, ""))
        self.assertEqual(len(proxy.heard.joins), 2)

    def test_over_limit(self):
        """A connection that is turned away is reported as ended, with the reason."""
        proxy = self.proxy(max_connections=1)
        proxy.client()
        proxy.client()
        self.assertEqual((proxy.heard.accepts, proxy.outcomes), (2, [Outcome.OVER_LIMIT]))
        self.assertEqual(proxy.heard.ends[0].why, "1 connections are being served (--max-connections)")


class JoinedTests(SessionCase):
    """Clients that have their builder."""

    def joined(self, **settings):
        """Join one client."""
        proxy = self.proxy(**settings)
        proxy.capacity.ready()
        client = proxy.client()
        client.send(b"x")
        proxy.settle()
        return proxy, client, proxy.builders[0]

    def test_hold_until_the_end(self):
        """The demand lasts as long as the joined connection, and ends with it."""
        proxy, client, builder = self.joined()
        proxy.after(100_000)
        self.assertEqual(len(proxy.capacity.holds), 1)
        client.hang_up()
        builder.hang_up()
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.COMPLETED], []))

    def test_no_cycles(self):
        """What was joined is freed at its end: the garbage collector comes seldom."""
        kinds = (Session, HeldClient, CopyRelay)

        def parts():
            return [each for each in gc.get_objects() if type(each) in kinds]

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        before = len(parts())
        for hello in (b"x", PREFACE):
            proxy, client, builder = self.joined()
            self.assertEqual(len(parts()), before + len(kinds))
            client.hang_up()
            builder.hang_up()
            proxy.settle()
            self.assertEqual(len(parts()), before, hello)

    def test_client_lost(self):
        """A joined client that resets takes its builder's connection with it."""
        proxy, client, builder = self.joined()
        client.reset()
        proxy.settle()
        self.assertEqual((proxy.outcomes, builder.was_reset), ([Outcome.CLIENT_LOST], True))

    def test_builder_lost(self):
        """A builder's reset reaches the client."""
        proxy, client, builder = self.joined()
        builder.reset()
        proxy.settle()
        self.assertEqual((proxy.outcomes, client.was_reset), ([Outcome.BUILDER_LOST], True))

    def test_cut(self):
        """Cutting resets both connections."""
        proxy, client, builder = self.joined()
        proxy.factory.cut_all()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.SHUTTING_DOWN])
        self.assertEqual((client.was_reset, builder.was_reset), (True, True))

    def test_deadline_is_over(self):
        """The deadline is for waiting: it does not end a connection that is joined."""
        proxy, _, _ = self.joined(ready_wait_timeout_s=1.0)
        proxy.after(100)
        self.assertEqual(proxy.outcomes, [])


class FactoryTests(SessionCase):
    """Counting, naming and draining."""

    def test_peers(self):
        """A client is named by its address: IPv4 as such, also on an IPv6 socket; IPv6 in brackets."""
        factory = self.proxy().factory
        for host, shown in (
            ("10.1.2.3", "10.1.2.3"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("fd00::1", "[fd00::1]"),
        ):
            session = repr(factory.buildProtocol(IPv6Address("TCP", host, 77)).owner._listener)
            self.assertIn(f"of {shown}:77:", session)
        self.assertIn("of a local client", repr(factory.buildProtocol(UNIXAddress(b"/x")).owner._listener))
        factory._sessions.clear()

    def test_over_the_limit(self):
        """A client too many is turned away at once, with an outcome, and wakes nothing."""
        proxy = self.proxy(max_connections=2)
        first = proxy.client()
        proxy.client()
        self.assertIsNone(proxy.client())
        self.assertEqual(proxy.outcomes, [Outcome.OVER_LIMIT])
        first.hang_up()
        proxy.settle()
        self.assertIsNotNone(proxy.client())

    def test_when_empty(self):
        """Waiting for the last connection ends when its outcome is known and it is closed."""
        proxy = self.proxy()
        self.successResultOf(proxy.factory.when_empty())
        client = proxy.client()
        waiting = proxy.factory.when_empty()
        self.assertNoResult(waiting)
        client.hang_up()
        proxy.settle()
        self.successResultOf(waiting)

    def test_cancelled_wait(self):
        """A wait that is cancelled leaves the others alone."""
        proxy = self.proxy()
        proxy.client()
        first, second = proxy.factory.when_empty(), proxy.factory.when_empty()
        first.cancel()
        self.failureResultOf(first)
        proxy.factory.cut_all()
        proxy.settle()
        self.successResultOf(second)
