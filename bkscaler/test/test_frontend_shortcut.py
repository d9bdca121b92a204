"""Tests of the way from accept to join without transports, and of where it is left, on real sockets."""

from __future__ import annotations

import gc
import os
import socket
from collections import Counter
from errno import EMFILE
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from bkscaler.frontend.acceptor import Acceptor
from bkscaler.frontend.session import Session
from bkscaler.frontend.shortcut import Shortcut
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay import sockets
from bkscaler.relay.flow import Flow
from bkscaler.relay.leg import Leg
from bkscaler.relay.poller import Registration
from bkscaler.relay.splice import CAN_SPLICE, SpliceRelay
from bkscaler.test.loopback import LOOPBACK, LoopbackProxy

ANSWER = b"the answer to "
reactor: Any = global_reactor


@implementer(IHalfCloseableProtocol)
class Builder(Protocol):
    """Answers, unless it is to be silent, and ends when its client has."""

    transport: Any = None
    factory: Any = None

    def connectionMade(self) -> None:
        """Be known to the test."""
        self.factory.alive.append(self)

    def dataReceived(self, data: bytes) -> None:
        """Take note, and answer."""
        self.factory.received += data
        if self.factory.answers:
            self.transport.write(ANSWER + data)

    def readConnectionLost(self) -> None:
        """End."""
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing."""


class Builders(Factory[Builder]):
    """Makes them, and knows what they were sent."""

    protocol = Builder
    noisy = False

    def __init__(self) -> None:
        self.alive: list[Builder] = []
        self.received = bytearray()
        self.answers = True


class Client:
    """A client, which is a socket of the operating system."""

    def __init__(self, port: int, data: bytes = b"") -> None:
        self.socket = socket.create_connection((LOOPBACK, port))
        self.socket.sendall(data)
        self.socket.setblocking(False)
        self.heard = b""
        self.ended = False

    def hears(self, data: bytes) -> bool:
        """Read what is there; say whether that is all there shall be."""
        try:
            while (more := self.socket.recv(65536)) != b"":
                self.heard += more
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        return self.heard == data

    def is_let_go(self) -> bool:
        """Read on to the end; say whether it has come."""
        self.hears(b"")
        return self.ended


class ShortcutCase(TestCase):
    """A proxy whose builder is ready, and a builder."""

    if not CAN_SPLICE:
        skip = "this system has no splice"
    timeout = 20

    def begin(self, **settings: Any) -> LoopbackProxy:
        """Listen, both of them; what is open in the end is closed."""
        self.builders = Builders()
        listening = reactor.listenTCP(0, self.builders, interface=LOOPBACK)
        proxy = LoopbackProxy(reactor, settings.pop("builder_port", listening.getHost().port), **settings)
        self.addCleanup(listening.stopListening)
        self.addCleanup(lambda: [each.transport.abortConnection() for each in self.builders.alive])
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.stop()))
        return proxy

    def client(self, proxy: LoopbackProxy, data: bytes = b"") -> Client:
        """Connect a client."""
        client = Client(proxy.port, data)
        self.addCleanup(client.socket.close)
        return client

    def run_in(self, scenario: Any, **settings: Any) -> Deferred[None]:
        """Play a scenario."""
        return Deferred.fromCoroutine(scenario(self.begin(**settings)))


class StraightTests(ShortcutCase):
    """A client that need not wait."""

    def test_joined(self):
        """It is joined without a session, served, counted and reported once, and its demand ends with it."""

        async def scenario(proxy):
            proxy.wake()
            client = self.client(proxy, b"hello")
            await proxy.until(lambda: client.hears(ANSWER + b"hello"))
            self.assertEqual([type(each) for each in proxy.connections()], [Shortcut])
            self.assertEqual(len(proxy.capacity.holds), 1)
            self.assertIn("up", repr(proxy.connections()[0]))
            client.socket.close()
            await proxy.when_over()
            heard = proxy.heard
            self.assertEqual((heard.accepts, heard.outcomes), (1, [Outcome.COMPLETED]))
            self.assertEqual((heard.ends[0].bytes_up, heard.ends[0].bytes_down), (5, 5 + len(ANSWER)))
            self.assertTrue(heard.ends[0].peer.startswith(f"{LOOPBACK}:"))
            self.assertEqual(proxy.capacity.holds, [])
            self.assertEqual(heard.joins, [heard.ends[0].waited_s])

        return self.run_in(scenario)

    def test_no_cycles(self):
        """What a connection was made of is freed when it ends: the garbage collector is not needed for it."""

        def parts():
            kinds = (Shortcut, SpliceRelay, Leg, Flow, Registration)
            return Counter(type(each) for each in gc.get_objects() if type(each) in kinds)

        async def scenario(proxy):
            proxy.wake()
            before = parts()
            for _ in range(3):
                client = self.client(proxy, b"hello")
                await proxy.until(lambda client=client: client.hears(ANSWER + b"hello"))
                self.assertEqual((parts() - before)[SpliceRelay], 1)
                client.socket.close()
                await proxy.when_over()
            await proxy.time.passing(0.0)  # what has ended is still being told so
            self.assertEqual(parts() - before, Counter())

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        return self.run_in(scenario)

    def test_slow_to_speak(self):
        """First bytes that come within the grace are early enough."""

        async def scenario(proxy):
            proxy.wake()
            client = self.client(proxy)
            await proxy.until(proxy.connections)
            self.assertIsNone(proxy.connections()[0].report().joined_s)
            client.socket.send(b"hello")
            await proxy.until(lambda: client.hears(ANSWER + b"hello"))
            self.assertEqual([type(each) for each in proxy.connections()], [Shortcut])

        return self.run_in(scenario, probe_grace_s=60.0)

    def test_much_at_once(self):
        """A client with more to say than is looked at, or than a pipe holds, has all of it passed on."""

        async def scenario(proxy):
            proxy.wake()
            self.builders.answers = False
            client, sent = self.client(proxy), os.urandom(4 << 20)
            client.socket.setblocking(True)
            await deferToThread(client.socket.sendall, sent)
            await proxy.until(lambda: len(self.builders.received) == len(sent))
            self.assertEqual(bytes(self.builders.received), sent)
            self.assertEqual([type(each) for each in proxy.connections()], [Shortcut])

        return self.run_in(scenario, probe_grace_s=60.0)

    def test_resets(self):
        """A reset of either side reaches the other, and is told as what it is."""

        async def scenario(proxy):
            proxy.wake()
            for outcome in (Outcome.BUILDER_LOST, Outcome.CLIENT_LOST):
                client = self.client(proxy, b"hello")
                await proxy.until(lambda client=client: client.hears(ANSWER + b"hello"))
                if outcome is Outcome.BUILDER_LOST:
                    self.builders.alive[-1].transport.abortConnection()
                    await proxy.until(client.is_let_go)
                else:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.socket.close()
                await proxy.when_over()
                self.assertIs(proxy.outcomes[-1], outcome)

        return self.run_in(scenario)

    def test_options(self):
        """Both sockets have the options of all connections: a dead peer is found on this way, too."""

        async def scenario(proxy):
            proxy.wake()
            client = self.client(proxy, b"hello")
            await proxy.until(lambda: client.hears(ANSWER + b"hello"))
            for leg in proxy.connections()[0]._relay._legs:
                handle = leg.transport.getHandle()
                for option in (socket.TCP_NODELAY, socket.TCP_KEEPIDLE):
                    self.assertTrue(handle.getsockopt(socket.IPPROTO_TCP, option))
                self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
                limit_ms = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                self.assertEqual(limit_ms, sockets.USER_TIMEOUT_MS)

        return self.run_in(scenario)

    def test_nothing_is_left(self):
        """After a thousand connections no descriptor, no demand and no delayed call is left."""

        async def come_and_go(proxy, count):
            clients = [Client(proxy.port, b"hello") for _ in range(count)]
            await proxy.until(lambda: all(client.hears(ANSWER + b"hello") for client in clients))
            for client in clients:
                client.socket.close()
            await proxy.when_over()
            await proxy.until(lambda: not any(each.transport.connected for each in self.builders.alive))
            self.builders.alive.clear()
            return set(os.listdir("/proc/self/fd"))

        async def scenario(proxy):
            proxy.wake()
            await proxy.time.passing(0.1)
            idle = len(reactor.getDelayedCalls())
            before = await come_and_go(proxy, 2)
            for _ in range(20):
                self.assertEqual(await come_and_go(proxy, 50), before)
            self.assertEqual(proxy.capacity.holds, [])
            self.assertEqual(proxy.outcomes, [Outcome.COMPLETED] * 1002)
            await proxy.until(lambda: len(reactor.getDelayedCalls()) == idle)

        return self.run_in(scenario)


class DetourTests(ShortcutCase):
    """A client that becomes a session."""

    def test_silent(self):
        """One that says nothing for the grace is a client all the same, and is held."""

        async def scenario(proxy):
            proxy.wake()
            client = self.client(proxy)
            await proxy.until(lambda: proxy.capacity.holds)
            self.assertEqual([type(each) for each in proxy.connections()], [Session])
            client.socket.send(b"hello")
            await proxy.until(lambda: client.hears(ANSWER + b"hello"))

        return self.run_in(scenario)

    def test_probe(self):
        """One that leaves without a byte was a health check, and wakes nothing."""

        async def scenario(proxy):
            for _ in range(3):
                self.client(proxy).socket.close()
            await proxy.until(lambda: len(proxy.outcomes) == 3)
            self.assertEqual(proxy.outcomes, [Outcome.PROBE] * 3)
            self.assertEqual((proxy.capacity.all_names, proxy.heard.accepts), ([], 3))

        return self.run_in(scenario)

    def test_no_builder(self):
        """Without a builder it is held with the demand that it has, and joined when there is one."""

        async def scenario(proxy):
            client = self.client(proxy, b"hello")
            await proxy.until(lambda: proxy.capacity.holds)
            await proxy.until(lambda: isinstance(proxy.connections()[0], Session))
            proxy.wake()
            await proxy.until(lambda: client.hears(ANSWER + b"hello"))
            self.assertEqual((len(proxy.capacity.all_names), proxy.heard.accepts), (1, 1))
            client.socket.close()
            await proxy.when_over()
            self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.COMPLETED], []))

        return self.run_in(scenario)

    def test_asks_and_finishes(self):
        """One that half-closes right behind its question gets the answer."""

        async def scenario(proxy):
            proxy.wake()
            client = self.client(proxy, b"hello")
            client.socket.shutdown(socket.SHUT_WR)
            await proxy.until(client.is_let_go)
            self.assertEqual(client.heard, ANSWER + b"hello")
            await proxy.when_over()
            self.assertEqual(proxy.outcomes, [Outcome.COMPLETED])

        return self.run_in(scenario)

    def test_refused(self):
        """A dial that is refused is counted, repeated by the session, and doubted."""
        with socket.create_server((LOOPBACK, 0)) as nobody:
            port = nobody.getsockname()[1]

        async def scenario(proxy):
            proxy.wake()
            client = self.client(proxy, b"hello")
            await proxy.until(
                lambda: [each for each in proxy.connections() if each.report().failed_dials > 1]
            )
            listening = reactor.listenTCP(port, self.builders, interface=LOOPBACK)
            self.addCleanup(listening.stopListening)
            await proxy.until(lambda: client.hears(ANSWER + b"hello"))
            client.socket.close()
            await proxy.when_over()
            self.assertEqual((proxy.outcomes, len(proxy.capacity.all_names)), ([Outcome.COMPLETED], 1))
            self.assertGreater(proxy.heard.ends[0].failed_dials, 1)

        return self.run_in(scenario, builder_port=port)

    def test_no_answer(self):
        """A dial that nobody answers is given up in time; a client that leaves meanwhile is heard."""
        silent = socket.create_server((LOOPBACK, 0), backlog=0)
        port = silent.getsockname()[1]
        full = [socket.socket() for _ in range(4)]
        for each in (silent, *full):
            self.addCleanup(each.close)
        for each in full:
            each.setblocking(False)
            each.connect_ex((LOOPBACK, port))

        async def scenario(proxy):
            proxy.wake()
            clients = [self.client(proxy, b"hello") for _ in range(2)]
            await proxy.until(lambda: len(proxy.capacity.holds) == 2)
            self.assertEqual([type(each) for each in proxy.connections()], [Shortcut] * 2)
            clients[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            clients[0].socket.close()
            await proxy.until(lambda: proxy.outcomes == [Outcome.LEFT_WHILE_HELD])
            await proxy.until(lambda: isinstance(proxy.connections()[0], Session))
            self.assertEqual(proxy.connections()[0].report().failed_dials, 1)

        return self.run_in(scenario, builder_port=port)

    def test_too_many(self):
        """One that is too many is closed, and reported."""

        async def scenario(proxy):
            proxy.wake()
            first = self.client(proxy, b"hello")
            await proxy.until(lambda: first.hears(ANSWER + b"hello"))
            second = self.client(proxy, b"hello")
            await proxy.until(second.is_let_go)
            self.assertEqual(proxy.outcomes, [Outcome.OVER_LIMIT])

        return self.run_in(scenario, max_connections=1)

    def test_cut(self):
        """When we shut down, a joined client is reset, and one that is not yet joined is let go."""

        async def scenario(proxy):
            proxy.wake()
            joined, silent = self.client(proxy, b"hello"), self.client(proxy)
            await proxy.until(lambda: joined.hears(ANSWER + b"hello") and len(proxy.connections()) == 2)
            self.assertEqual([type(each) for each in proxy.connections()], [Shortcut] * 2)
            proxy.cut_all()
            await proxy.when_over()
            await proxy.until(lambda: joined.is_let_go() and silent.is_let_go())
            self.assertEqual(proxy.outcomes, [Outcome.SHUTTING_DOWN] * 2)
            self.assertEqual(proxy.capacity.holds, [])

        return self.run_in(scenario, probe_grace_s=60.0)

    def test_bug(self):
        """A bug costs the client its connection, is logged, and the next client is served."""

        async def scenario(proxy):
            proxy.wake()
            hold = proxy.capacity.hold
            proxy.capacity.hold = lambda name: 1 // 0
            client = self.client(proxy, b"hello")
            await proxy.until(client.is_let_go)
            self.assertEqual(proxy.outcomes, [Outcome.INTERNAL_ERROR])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            proxy.capacity.hold = hold
            client = self.client(proxy, b"hello")
            await proxy.until(lambda: client.hears(ANSWER + b"hello"))

        return self.run_in(scenario)


class _Refused:
    """A listening socket of which the system has no more to give."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def accept(self) -> None:
        """Fail."""
        raise self.error


class _Port(Acceptor):
    """Counts how often Twisted's own way is taken."""

    ways = 0

    def doRead(self) -> None:
        """Count."""
        self.ways += 1


class AcceptorTests(SynchronousTestCase):
    """The port."""

    def test_without_descriptors(self):
        """When accepting fails Twisted's own way is gone; that nobody is there is no failure."""
        port = _Port(0, Factory(), 50, LOOPBACK, object(), poller=object())
        port.socket = _Refused(OSError(EMFILE, "no more"))
        port._accept(0)
        self.assertEqual(port.ways, 1)
        port.socket = _Refused(BlockingIOError())
        port._accept(0)
        self.assertEqual(port.ways, 1)
