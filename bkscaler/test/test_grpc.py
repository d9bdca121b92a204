"""
Tests of held gRPC clients with the real thing: grpcio's client and server, through the proxy on loopback.

The proxy's time runs twenty times faster (:mod:`bkscaler.test.loopback`), so that its defaults can be
tested; seconds in names and docstrings are its own. grpcio gives a connection 20 s, as grpc-go does, unless
told otherwise: here one real second, which is the same 20 s of the proxy's.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator

import grpc
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from bkscaler.errors import WakeImpossible
from bkscaler.frontend.calls import TRACES_PATH
from bkscaler.frontend.http2 import PING, FrameReader
from bkscaler.frontend.sniff import PREFACE
from bkscaler.observability.outcomes import Outcome
from bkscaler.test.grpc_peers import Client, answer_of, serve
from bkscaler.test.loopback import LOOPBACK, Link, LoopbackProxy, MoodyBuilder, RecordingBuilder

CONNECT_LIMIT = ("grpc.min_reconnect_backoff_ms", 1000)
"""How long the client waits for SETTINGS: its default is 20 s."""
HOLD_AFTER_S = 2.0
"""When a client is told that a server is there, in tests of what happens then: its default is 10 s."""
REFUSED = grpc.StatusCode.FAILED_PRECONDITION
SERVED = ([Outcome.COMPLETED], [Outcome.CLIENT_LOST])
"""One connection, joined. grpcio ends it with a reset when it closes before it has read everything."""


class GrpcCase(TestCase):
    """A server, a proxy and clients, all gone at the end of a test."""

    timeout = 20

    def server(self, *options):
        """Start a builder; give its port."""
        server, port = serve(LOOPBACK, 0, *options)
        self.addCleanup(lambda: server.stop(None).wait())
        return port

    def proxy(self, builder_port=None, **settings):
        """Start a proxy before a builder, a plain one if none is named."""
        settings = {"hold_after_s": HOLD_AFTER_S, **settings}
        proxy = LoopbackProxy(reactor, builder_port or self.server(), **settings)
        self.addCleanup(proxy.stop)
        return proxy

    def listen(self, factory):
        """Listen with a protocol factory; give the port."""
        port = reactor.listenTCP(0, factory, interface=LOOPBACK)
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def client(self, port, *options):
        """Make a client."""
        client = Client(port, CONNECT_LIMIT, *options)
        self.addCleanup(client.close)
        return client

    def answer(self, call):
        """Wait for a call."""
        return answer_of(call, reactor)

    async def held(self, proxy, *messages, options=()):
        """Make a client that makes calls, and have them held; give both."""
        client = self.client(proxy.port, *options)
        calls = [client.call(message) for message in messages]
        await proxy.until_told(len(calls))
        return client, calls

    async def answers(self, calls):
        """Wait for several calls."""
        return [await self.answer(call) for call in calls]

    def frames(self, builder):
        """Give the frames that a builder was sent."""
        return list(FrameReader().feed(bytes(builder.received).removeprefix(PREFACE)))

    async def over(self, proxy, client):
        """Close a client; give the outcomes when its connections are gone."""
        client.close()
        await proxy.when_over()
        return proxy.outcomes


class ColdStartTests(GrpcCase):
    """Calls that come before the builder does."""

    async def cold_start(self, seconds, hold_after_s=10.0):
        """Make one call that is held so long; give its answer and the outcomes."""
        proxy = self.proxy(hold_after_s=hold_after_s)
        client = self.client(proxy.port)
        call = client.call()
        await proxy.time.passing(seconds)
        proxy.wake()
        answer = await self.answer(call)
        return answer, await self.over(proxy, client)

    async def test_succeed(self):
        """After 0, 3, 12 and 30 s of waiting a call is answered, on one connection."""
        starts = [Deferred.fromCoroutine(self.cold_start(seconds)) for seconds in (0.0, 3.0, 12.0, 30.0)]
        for answer, outcomes in await gatherResults(starts):
            self.assertEqual(answer, b"hello")
            self.assertIn(outcomes, SERVED)

    async def test_silence_fails(self):
        """A hold that never says anything loses the client at 20 s: what these tests are good for."""
        answer, outcomes = await self.cold_start(30.0, hold_after_s=1000.0)
        self.assertEqual(answer[0], grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(outcomes[0], Outcome.LEFT_WHILE_HELD)

    async def test_told_at_once(self):
        """With a silence of 0 s a client that is told at once is served as well."""
        answer, outcomes = await self.cold_start(3.0, hold_after_s=0.0)
        self.assertEqual(answer, b"hello")
        self.assertIn(outcomes, SERVED)

    async def test_several_calls(self):
        """Calls made while held and after joining are all answered, on one connection."""
        proxy = self.proxy()
        held, joined = ([b"%s %d" % (word, number) for number in range(5)] for word in (b"held", b"joined"))
        client, calls = await self.held(proxy, *held)
        proxy.wake()
        self.assertEqual(await self.answers(calls), held)
        self.assertEqual(await self.answers(map(client.call, joined)), joined)
        self.assertIn(await self.over(proxy, client), SERVED)

    async def test_large_message(self):
        """A message larger than the first window, sent while held, arrives."""
        proxy = self.proxy()
        large = os.urandom(300_000)
        _, calls = await self.held(proxy, large)
        proxy.wake()
        self.assertEqual(await self.answers(calls), [large])

    async def test_fifty_megabytes(self):
        """50 MB up and 50 MB down, begun while held, arrive byte for byte."""
        proxy = self.proxy()
        sent, got = hashlib.sha256(), hashlib.sha256()
        pieces = [os.urandom(1_000_000) for _ in range(10)]

        def messages() -> Iterator[bytes]:
            for number in range(50):
                message = pieces[number % 10]
                sent.update(message)
                yield message

        def exchange() -> None:
            for message in client.stream(messages()):
                got.update(message)

        client = self.client(proxy.port)
        exchanged = deferToThread(exchange)
        await proxy.until_told(1)
        proxy.wake()
        await exchanged
        self.assertEqual(got.hexdigest(), sent.hexdigest())
        self.assertIn(await self.over(proxy, client), SERVED)

    async def test_pings_while_held(self):
        """A client that asks for signs of life while held gets them, and its builder hears none."""
        builder = RecordingBuilder(self.server())
        proxy = self.proxy(self.listen(builder))
        often = (
            ("grpc.keepalive_time_ms", 200),
            ("grpc.keepalive_timeout_ms", 300),
            ("grpc.http2.max_pings_without_data", 0),
        )
        client, calls = await self.held(proxy, b"hello", options=often)
        await proxy.time.passing(25.0)
        proxy.wake()
        self.assertEqual(await self.answers(calls), [b"hello"])
        self.assertIn(await self.over(proxy, client), SERVED)
        held = itertools.takewhile(lambda frame: not frame.is_settings_ack, self.frames(builder))
        self.assertNotIn(PING, [frame.kind for frame in held])

    async def test_single_bytes(self):
        """A client whose bytes come one by one is held and served like any other."""
        proxy = self.proxy()
        client = self.client(self.listen(Link(reactor, proxy.port, single=True)))
        calls = [client.call(b"one"), client.call(b"two")]
        await proxy.until_told(2)
        proxy.wake()
        self.assertEqual(await self.answers(calls), [b"one", b"two"])
        self.assertEqual(await self.answer(client.call(b"joined")), b"joined")
        self.assertIn(await self.over(proxy, client), SERVED)

    async def test_late_acknowledgement(self):
        """A client that acknowledges our SETTINGS only after joining is served; the builder sees one
        acknowledgement, that of its own."""
        for single in (False, True):
            builder = RecordingBuilder(self.server())
            proxy = self.proxy(self.listen(builder), hold_after_s=0.0)
            proxy.wake()
            client = self.client(self.listen(Link(reactor, proxy.port, delay_s=0.001, single=single)))
            self.assertEqual(await self.answer(client.call()), b"hello")
            self.assertEqual(await self.answer(client.call(b"again")), b"again")
            self.assertIn(await self.over(proxy, client), SERVED)
            self.assertEqual(len([each for each in self.frames(builder) if each.is_settings_ack]), 1)


class BuilderTests(GrpcCase):
    """Builders that make it hard."""

    async def served(self, proxy, *messages):
        """Hold a client that makes calls, and have it served; give the client."""
        client, calls = await self.held(proxy, *messages)
        proxy.wake()
        self.assertEqual(await self.answers(calls), list(messages))
        return client

    async def test_no_header_table(self):
        """A builder that allows no header table can read what the client sent while it knew of no limit."""
        proxy = self.proxy(self.server(("grpc.http2.hpack_table_size.decoder", 0)))
        client = await self.served(proxy, b"one", b"two")
        self.assertEqual(await self.answers(map(client.call, (b"three", b"four"))), [b"three", b"four"])
        self.assertIn(await self.over(proxy, client), SERVED)

    async def test_small_window(self):
        """A builder with a small window takes what the client sent before it knew."""
        small = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
        proxy = self.proxy(self.server(*small))
        client = await self.served(proxy, b"x" * 60_000)
        self.assertEqual(await self.answer(client.call(b"y" * 100_000)), b"y" * 100_000)

    async def test_closes_at_first(self):
        """A builder that accepts and closes a few times before it serves is dialled again."""
        builder = MoodyBuilder(self.server(), *["closes"] * 3)
        proxy = self.proxy(self.listen(builder))
        client = await self.served(proxy, b"hello")
        self.assertIn(await self.over(proxy, client), SERVED)
        self.assertEqual(builder.connections, 4)

    async def test_silent_at_first(self):
        """A builder that accepts and stays silent is dialled anew after 5 s."""
        builder = MoodyBuilder(self.server(), "is silent")
        proxy = self.proxy(self.listen(builder))
        client = await self.served(proxy, b"hello")
        self.assertIn(await self.over(proxy, client), SERVED)
        self.assertEqual(builder.connections, 2)

    async def test_silent_for_ever(self):
        """When all a builder does is accept, the client reads that."""
        proxy = self.proxy(self.listen(MoodyBuilder(0, *["is silent"] * 100)), ready_wait_timeout_s=20.0)
        proxy.wake()
        client = self.client(proxy.port)
        status, words = await self.answer(client.call())
        self.assertEqual(status, REFUSED)
        self.assertEqual(words, "buildkitd not ready after 20s: the builder accepts and says nothing for 5 s")
        self.assertEqual(await self.over(proxy, client), [Outcome.BUILDER_REFUSED])


class RefusalTests(GrpcCase):
    """What a client reads when its builder does not come."""

    async def test_deadline(self):
        """At the deadline every open call, and every later one on the connection, fails with the reason."""
        proxy = self.proxy(ready_wait_timeout_s=15.0)
        proxy.capacity.waiting_for = "pod buildkitd-0: 0/3 nodes are available: 50% „voll“"
        client, calls = await self.held(proxy, b"one", b"two")
        refused = await self.answers(calls)
        refused += [await self.answer(client.call(b"late")) for _ in range(3)]
        words = f"buildkitd not ready after 15s: {proxy.capacity.waiting_for}"
        self.assertEqual(refused, [(REFUSED, words)] * 5)
        self.assertEqual(len(proxy.capacity.all_names), 1)
        self.assertEqual(await self.over(proxy, client), [Outcome.NOT_READY_IN_TIME])

    async def test_before_it_was_told(self):
        """A client that is given up before it was told that there is a server reads the reason, too."""
        proxy = self.proxy(ready_wait_timeout_s=3.0)
        status, words = await self.answer(self.client(proxy.port).call())
        self.assertEqual((status, words[:31]), (REFUSED, "buildkitd not ready after 3s: p"))

    async def test_impossible(self):
        """What makes a wake impossible is read at once."""
        proxy = self.proxy()
        _, calls = await self.held(proxy, b"hello")
        proxy.capacity.impossible(WakeImpossible("there is no such StatefulSet"))
        refusals = await self.answers(calls)
        self.assertEqual(refusals, [(REFUSED, "buildkitd not ready: there is no such StatefulSet")])

    async def test_large_message(self):
        """A call whose message is larger than the window is refused like any other."""
        proxy = self.proxy(ready_wait_timeout_s=8.0)
        _, calls = await self.held(proxy, b"x" * 300_000)
        ((status, _),) = await self.answers(calls)
        self.assertEqual(status, REFUSED)


class LeavingTests(GrpcCase):
    """Clients that do not wait for the builder."""

    async def test_cancel(self):
        """A client that cancels its only call needs no builder any more, though its connection stays."""
        proxy = self.proxy()
        client, (call,) = await self.held(proxy, b"hello")
        self.assertEqual(len(proxy.capacity.holds), 1)
        call.cancel()
        await proxy.until(lambda: not proxy.capacity.holds)
        self.assertEqual(proxy.outcomes, [])
        self.assertEqual(await self.over(proxy, client), [Outcome.CANCELLED_WHILE_HELD])

    async def test_ask_again(self):
        """A client that asks again on the same connection, after its call has timed out, is served."""
        proxy = self.proxy()
        client = self.client(proxy.port)
        await self.answer(client.call(timeout_s=0.4))
        await proxy.until(lambda: not proxy.capacity.holds)
        call = client.call(b"again")
        await proxy.until_told(1)
        self.assertEqual(len(proxy.capacity.holds), 1)
        proxy.wake()
        self.assertEqual(await self.answer(call), b"again")
        self.assertIn(await self.over(proxy, client), SERVED)

    async def test_traces(self):
        """A client that only hands in its traces, as an interrupted one does, is soon turned away."""
        proxy = self.proxy()
        client = self.client(proxy.port)
        traces = client.channel.unary_unary(TRACES_PATH.decode()).future(b"spans")
        status, _ = await self.answer(traces)
        self.assertEqual((status, proxy.capacity.holds), (REFUSED, []))
        self.assertEqual(await self.over(proxy, client), [Outcome.CANCELLED_WHILE_HELD])

    async def test_one_of_two_cancelled(self):
        """A client that cancels one of two calls still gets the other one's answer."""
        proxy = self.proxy()
        client, (call, other) = await self.held(proxy, b"one", b"other")
        call.cancel()
        await proxy.until_told(1)
        proxy.wake()
        self.assertEqual(await self.answer(other), b"other")
        self.assertIn(await self.over(proxy, client), SERVED)

    async def test_call_times_out(self):
        """A call whose own time limit ends while it is held has cancelled."""
        proxy = self.proxy()
        client = self.client(proxy.port)
        status, _ = await self.answer(client.call(timeout_s=0.5))
        self.assertEqual(status, grpc.StatusCode.DEADLINE_EXCEEDED)
        await proxy.until(lambda: not proxy.capacity.holds)
        self.assertEqual(await self.over(proxy, client), [Outcome.CANCELLED_WHILE_HELD])

    async def test_leave(self):
        """A client that closes its connection after it was told needs no builder any more."""
        proxy = self.proxy()
        client, _ = await self.held(proxy, b"hello")
        outcomes = await self.over(proxy, client)
        self.assertEqual(proxy.capacity.holds, [])
        self.assertIn(outcomes, ([Outcome.LEFT_WHILE_HELD], [Outcome.CANCELLED_WHILE_HELD]))

    async def test_leave_in_silence(self):
        """A client that closes its connection before it was told needs no builder any more."""
        proxy = self.proxy(hold_after_s=1000.0)
        client = self.client(proxy.port)
        client.call()
        await proxy.until(lambda: proxy.capacity.holds)
        self.assertEqual(await self.over(proxy, client), [Outcome.LEFT_WHILE_HELD])
        self.assertEqual(proxy.capacity.holds, [])
