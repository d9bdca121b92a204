"""What a soak is made of: its clients, its builder, the gate, and a short soak as a process of its own."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bkscaler.frontend.sniff import PREFACE
from bkscaler.simulation.calls import Calls
from bkscaler.soak.builder.__main__ import GREETING_S, Served
from bkscaler.soak.clients import REST_EVERY_BYTES, EchoClient, Pattern
from bkscaler.soak.errands import KIB, Ending, Errand
from bkscaler.soak.gate import LOOPBACK, Gate
from bkscaler.soak.grpcclient import GrpcClient
from bkscaler.soak.views import View
from bkscaler.test import processes

SHORT = ("--minutes", "0.2", "--seed", "1")
PATIENCE_S = 20.0


class Wire(StringTransport):
    """A transport that notes how it is ended, and asks a pull producer until that has no more."""

    def __init__(self):
        super().__init__()
        self.ended = ""

    def registerProducer(self, producer, streaming):
        """Take all that it has."""
        super().registerProducer(producer, streaming)
        while self.producer is not None and not streaming:
            self.producer.resumeProducing()

    def setTcpNoDelay(self, enabled):
        """Do nothing."""

    def loseWriteConnection(self):
        """Note it."""
        self.ended = "finished"

    def loseConnection(self):
        """Note it."""
        self.ended = "closed"

    def abortConnection(self):
        """Note it."""
        self.ended = "reset"


def view_of(**what):
    """Make the view of a client that has dialled."""
    return View(**{"name": "00000001", "kind": "k", "ip": "127.1.0.1", "dialled_s": 0.0, **what})


class EchoClientTests(SynchronousTestCase):
    """A client that knows what must come back."""

    def client(self, **errand):
        """Connect a client; give it with its wire and its clock."""
        clock, wire = Clock(), Wire()
        client = EchoClient(view_of(), Errand(kind="k", **errand), Pattern(Random(1)), clock)
        client.makeConnection(wire)
        clock.advance(0)
        return client, wire, clock

    def echo(self, client, wire):
        """Send back what has come."""
        data = wire.value()
        wire.clear()
        client.dataReceived(data)

    def test_errand(self):
        """It says each piece when the last one has come back and the pause is over, stays, and leaves."""
        client, wire, clock = self.client(says=((0.0, 10), (1.0, 200_000)), stays_s=2.0)
        self.assertEqual(len(wire.value()), 10)
        clock.advance(5)
        self.assertEqual((client.view.waits_s, client.view.served_s), (0.0, math.inf))
        self.echo(client, wire)
        self.assertEqual((client.view.waits_s, client.view.served_s), (math.inf, 5.0))
        clock.advance(1)
        self.assertEqual(len(wire.value()), 200_000)
        self.echo(client, wire)
        clock.advance(1.9)
        self.assertEqual(wire.ended, "")
        clock.advance(0.2)
        self.assertEqual((wire.ended, client.view.finished, client.view.wrong), ("finished", True, ""))
        client.connectionLost(Failure(ConnectionDone()))
        view = client.view
        self.assertEqual((view.received, view.sent, view.cut_s), (200_010, 200_010, math.inf))
        self.assertEqual((view.left_s, view.lost_s), (8.1, 8.1))

    def test_comparing(self):
        """A byte that is another, missing or too many is noticed, wherever it is."""
        for place in (0, 9, 70_000, 199_999):
            client, wire, _ = self.client(says=((0.0, 200_000),))
            data = bytearray(wire.value())
            data[place] ^= 1
            client.dataReceived(bytes(data))
            self.assertIn("something else", client.view.wrong)
        client, wire, _ = self.client(says=((0.0, 10),))
        client.dataReceived(wire.value() + b"x")
        self.assertNotEqual(client.view.wrong, "")

    def test_plain(self):
        """It never begins as HTTP/2 or TLS does."""
        pattern = Pattern(Random(1))
        ring = b"".join(bytes(pattern.piece(at, 50_000)) for at in range(0, 1_000_000, 50_000))
        self.assertEqual((ring.count(b"P"), ring.count(b"\x16")), (0, 0))
        self.assertEqual(len(set(ring)), 254)

    def test_patience(self):
        """It leaves when its patience is over, served or not, in its way."""
        for ending, ended in ((Ending.HANG_UP, "closed"), (Ending.RESET, "reset")):
            client, wire, clock = self.client(says=((0.0, 9),), patience_s=1.0, ending=ending)
            clock.advance(1)
            self.assertEqual((wire.ended, client.view.left_s, client.view.waits_s), (ended, 1.0, math.inf))
            self.assertEqual(client.view.reset, ending is Ending.RESET)

    def test_cut(self):
        """An end that it has not brought about is noted as a cut; one that it has is not."""
        client, wire, clock = self.client(says=((0.0, 9),))
        clock.advance(3)
        client.readConnectionLost()
        self.assertEqual((client.view.cut_s, wire.ended), (3.0, "closed"))
        client, _, clock = self.client(says=((0.0, 9),))
        client.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(client.view.cut_s, 0.0)
        self.assertEqual(clock.getDelayedCalls(), [])
        client, _, _ = self.client(says=((0.0, 9),))
        client.leave(Ending.FINISH)
        client.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(client.view.cut_s, 0.0)

    def test_slow_reader(self):
        """A slow reader stops reading after some bytes, and reads again after its rest, or when it leaves."""
        client, wire, clock = self.client(says=((0.0, 1024 * KIB),), rests_s=1.0)
        data = wire.value()
        client.dataReceived(data[:REST_EVERY_BYTES])
        self.assertEqual(wire.producerState, "paused")
        clock.advance(1)
        self.assertEqual(wire.producerState, "producing")
        client.dataReceived(data[REST_EVERY_BYTES : 2 * REST_EVERY_BYTES])
        client.leave()
        self.assertEqual((wire.producerState, wire.ended), ("producing", "finished"))

    def test_garbage(self):
        """Who sends garbage does not look at the answer."""
        client, wire, _ = self.client(words=b"\x00\x01")
        client.dataReceived(b"anything")
        self.assertEqual((wire.value(), client.view.wrong), (b"\x00\x01", ""))


class BuilderTests(SynchronousTestCase):
    """The builder, and gRPC clients before it."""

    def builder(self):
        """Connect somebody to a builder; give it with its wire and the clock."""
        clock, wire = Clock(), Wire()
        served = Served(clock)
        served.makeConnection(wire)
        return served, wire, clock

    def test_echo(self):
        """It sends back what it gets, and a half-close."""
        served, wire, clock = self.builder()
        served.dataReceived(b"hello")
        served.dataReceived(b" PRI")
        clock.advance(GREETING_S)
        served.readConnectionLost()
        self.assertEqual((wire.value(), wire.ended), (b"hello PRI", "closed"))

    def test_nearly_http2(self):
        """The beginning of a preface that never comes is sent back, too."""
        served, wire, clock = self.builder()
        served.dataReceived(PREFACE[:5])
        self.assertEqual(wire.value(), b"")
        served.readConnectionLost()
        self.assertEqual((wire.value(), wire.ended), (PREFACE[:5], "closed"))
        served.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(clock.getDelayedCalls(), [])

    def calls(self, **errand):
        """Connect a gRPC client to a builder; give it with a function that lets bytes go to and fro."""
        clock, near, (served, far, _) = Clock(), Wire(), self.builder()
        errand = Errand(kind="k", speaks_http2=True, ending=Ending.HANG_UP, **errand)
        client = GrpcClient(view_of(), errand, clock)
        client.makeConnection(near)
        clock.advance(0)

        def exchange():
            while near.value() or far.value():
                up, down = near.value(), far.value()
                near.clear()
                far.clear()
                if up:
                    served.dataReceived(up)
                if down:
                    client.dataReceived(down)

        return client, near, clock, exchange

    def test_calls(self):
        """Each call of a gRPC client is answered with its body; then it leaves."""
        client, near, clock, exchange = self.calls(says=((0.0, 300), (1.0, 8000)), stays_s=1.0)
        exchange()
        self.assertEqual((client.view.served_s, client.view.waits_s), (0.0, math.inf))
        clock.advance(1)
        self.assertEqual(client.view.waits_s, 1.0)
        exchange()
        self.assertEqual((client.answered, client.view.wrong), (2, ""))
        clock.advance(1)
        self.assertEqual((near.ended, client.view.left_s), ("closed", 2.0))

    def test_greeting(self):
        """To who says nothing it speaks HTTP/2."""
        _, wire, clock = self.builder()
        clock.advance(GREETING_S)
        expected = Wire()
        Calls(lambda who: None, expected)
        self.assertEqual(wire.value(), expected.value())

    def test_cancelled(self):
        """A client that loses its patience takes its call back, and leaves after that."""
        client, near, clock, _ = self.calls(says=((0.0, 9),), patience_s=1.0, cancels=True)
        clock.advance(1)
        self.assertEqual((client.view.cancelled, client.view.waits_s, near.ended), (True, math.inf, ""))
        clock.advance(1)
        self.assertEqual(near.ended, "closed")
        client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(clock.getDelayedCalls(), [])


class _Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class _Asking(Protocol):
    """Waits for answers, and for the end."""

    def __init__(self):
        self.answer, self.lost = Deferred(), Deferred()

    def dataReceived(self, data):
        self.answer.callback(data)

    def connectionLost(self, reason):
        self.lost.callback(None)


class GateTests(TestCase):
    """The way to the API server, on real sockets."""

    timeout = PATIENCE_S

    def setUp(self):
        from twisted.internet import reactor  # noqa: PLC0415  # installed only when it is needed

        self.reactor = reactor
        server = reactor.listenTCP(0, Factory.forProtocol(_Echo), interface=LOOPBACK)
        self.addCleanup(server.stopListening)
        self.server_port = server.getHost().port
        self.gate = Gate(reactor, self.server_port)
        self.addCleanup(self.gate.close)
        self.gate.open()

    async def ask(self, port=None):
        """Connect, through the gate if no port is given, and send something; give the connection."""
        endpoint = TCP4ClientEndpoint(self.reactor, LOOPBACK, port or self.gate.port)
        asking = await endpoint.connect(Factory.forProtocol(_Asking))
        asking.transport.write(b"hello")
        return asking

    async def test_open(self):
        """Bytes pass; the end of one side is that of the other."""
        asking = await self.ask()
        self.assertEqual(await asking.answer, b"hello")
        asking.transport.loseConnection()
        await asking.lost

    async def test_closed(self):
        """Closed it refuses, and cuts who was there; then it opens on the same port."""
        asking = await self.ask()
        await asking.answer
        await self.gate.close()
        await asking.lost
        await self.assertFailure(Deferred.fromCoroutine(self.ask()), ConnectError)
        self.gate.open()
        asking = await self.ask()
        self.assertEqual(await asking.answer, b"hello")
        asking.transport.loseConnection()
        await asking.lost

    async def test_blocked(self):
        """Blocked it says nothing, to those who come neither; then everything arrives."""
        first = await self.ask()
        await first.answer
        first.answer = Deferred()
        self.gate.block()
        first.transport.write(b"again")
        second = await self.ask()
        for _ in range(3):  # longer than an answer takes that may pass
            direct = await self.ask(self.server_port)
            await direct.answer
            direct.transport.loseConnection()
            await direct.lost
        self.assertFalse(first.answer.called or second.answer.called)
        self.gate.unblock()
        self.assertEqual((await first.answer, await second.answer), (b"again", b"hello"))
        for asking in (first, second):
            asking.transport.loseConnection()
            await asking.lost


class WholeTests(SynchronousTestCase):
    """``python -m bkscaler.soak``, which takes as long as it takes; run with ``BKSCALER_SLOW_TESTS=1``."""

    if not os.environ.get("BKSCALER_SLOW_TESTS"):
        skip = "slow; set BKSCALER_SLOW_TESTS=1"

    def soak(self):
        """Start a short one whose files are in a directory that is given with it."""
        directory = os.path.abspath(self.mktemp())
        os.makedirs(directory)
        child = processes.Child(sys.executable, "-m", "bkscaler.soak", *SHORT, environ={"TMPDIR": directory})
        self.addCleanup(child.kill)
        return child, directory

    def test_short(self):
        """A short soak has a wake, a sleep, a fault and a restart; nothing fails and nothing is left."""
        child, directory = self.soak()
        self.assertEqual(child.ended(), 0, child.output)
        last = child.output.splitlines()[-1]
        self.assertRegex(last, r"^soaked [0-9.]+ minutes, [0-9,]+ connections, 0 failures$")
        self.assertTrue(re.search(r"[1-9]\d* wakes, [1-9]\d* sleeps", child.output), child.output)
        self.assertIn("2 bkscaler is told to end", child.output)
        self.assertEqual(os.listdir(directory), [])

    def test_interrupted(self):
        """Interrupted it ends everything, and says so by its status."""
        child, directory = self.soak()
        child.until("round   1: .* clients")
        child.signal(signal.SIGTERM)
        self.assertEqual(child.ended(), 130, child.output)
        self.assertEqual(os.listdir(directory), [])
