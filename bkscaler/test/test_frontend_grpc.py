"""Tests of the life of a connection whose client speaks HTTP/2, or TLS, or HTTP/1."""

from __future__ import annotations

from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame

from bkscaler.errors import WakeImpossible
from bkscaler.frontend.calls import TRACES_PATH
from bkscaler.frontend.greeting import GREETING_TIMEOUT_S
from bkscaler.frontend.refusal import SERVER_SETTINGS
from bkscaler.frontend.session import LINGER_S, PREFACE_LIMIT_S
from bkscaler.frontend.sniff import PREFACE
from bkscaler.observability.outcomes import Outcome
from bkscaler.test.flow import Peer
from bkscaler.test.proxy import Controls
from bkscaler.test.test_frontend_conversation import ACK, PING, PONG, SETTINGS, answered, headers, reset
from bkscaler.test.test_frontend_session import CLIENT_HELLO, SessionCase

GREETING = b"\0\0\6\4\0\0\0\0\0\0\5\0\0\x40\0"
"""The SETTINGS frame that buildkitd begins with."""


class GrpcCase(SessionCase):
    """Held gRPC clients."""

    def held(self, sent=SETTINGS, **settings) -> tuple[Controls, Peer]:
        """Hold one client that has sent its preface and something more."""
        proxy = self.proxy(**settings)
        client = proxy.client()
        client.send(PREFACE + sent)
        proxy.settle()
        return proxy, client

    def greet(self, proxy, place=-1) -> Peer:
        """Let a builder say its first words."""
        builder = proxy.builders[place]
        builder.send(GREETING)
        proxy.settle()
        return builder


class HoldTests(GrpcCase):
    """Between accept and join."""

    def test_fast_start(self):
        """A builder that is there before the hold has lasted long sees the client's bytes untouched."""
        proxy, client = self.held(SETTINGS + PING)
        proxy.after(9.9)
        proxy.capacity.ready()
        proxy.settle()
        builder = self.greet(proxy)
        self.assertEqual(bytes(builder.received), PREFACE + SETTINGS + PING)
        self.assertEqual(bytes(client.received), GREETING)

    def test_early_settings(self):
        """After the hold has lasted for --hold-after, the client is told that a server is there, once."""
        proxy, client = self.held()
        proxy.after(9.9)
        self.assertEqual(bytes(client.received), b"")
        proxy.after(0.2)
        self.assertEqual(bytes(client.received), SERVER_SETTINGS)
        proxy.after(100)
        self.assertEqual(bytes(client.received), SERVER_SETTINGS)

    def test_replay(self):
        """What the client said while held reaches the builder in order, less one ACK and the PINGs."""
        proxy, client = self.held()
        proxy.after(10)
        data = DataFrame(1, data=b"x" * 9000).serialize()
        client.send(ACK + headers(1) + PING + data)
        proxy.settle()
        self.assertEqual(bytes(client.received), SERVER_SETTINGS + PONG)
        proxy.capacity.ready()
        proxy.settle()
        builder = self.greet(proxy)
        client.send(ACK + headers(3))
        proxy.settle()
        expected = PREFACE + SETTINGS + headers(1) + data + ACK + headers(3)
        self.assertEqual(bytes(builder.received), expected)
        self.assertEqual(bytes(client.received), SERVER_SETTINGS + PONG + GREETING)

    def test_late_acknowledgement(self):
        """The ACK of the early SETTINGS is dropped also when it comes after joining; later bytes are not."""
        proxy, client = self.held()
        proxy.after(10)
        proxy.capacity.ready()
        proxy.settle()
        builder = self.greet(proxy)
        for byte in headers(1) + ACK + ACK + b"anything at all":
            client.send(bytes([byte]))
            proxy.settle()
        self.assertEqual(bytes(builder.received), PREFACE + SETTINGS + headers(1) + ACK + b"anything at all")

    def test_preface_in_two_parts(self):
        """A preface that comes in two segments is one; a builder that is there waits for the second."""
        proxy = self.proxy()
        proxy.capacity.ready()
        client = proxy.client()
        client.send(PREFACE[:10])
        proxy.settle()
        self.assertEqual(proxy.dials, [])
        client.send(PREFACE[10:] + SETTINGS)
        proxy.settle()
        self.assertEqual(bytes(self.greet(proxy).received), PREFACE + SETTINGS)

    def test_half_a_preface(self):
        """Who begins like an HTTP/2 client and goes no further is joined like any other after a moment."""
        proxy = self.proxy()
        proxy.capacity.ready()
        proxy.client().send(PREFACE[:3])
        proxy.settle()
        proxy.after(PREFACE_LIMIT_S)
        self.assertEqual(bytes(proxy.builders[0].received), PREFACE[:3])

    def test_half_a_preface_at_the_deadline(self):
        """When the deadline comes while the rest of a preface is waited for, that is the reason."""
        proxy = self.proxy(ready_wait_timeout_s=5.0)
        proxy.client().send(PREFACE[:3])
        proxy.after(4.5)
        proxy.capacity.waiting_for = ""
        proxy.capacity.ready()
        proxy.after(0.6)
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])
        self.assertEqual(proxy.heard.ends[0].why, "the client has not finished its HTTP/2 preface")

    def test_half_a_preface_and_no_builder_any_more(self):
        """A builder that is gone when the rest of a preface has been waited for is not dialled."""
        proxy = self.proxy()
        proxy.capacity.ready()
        proxy.client().send(PREFACE[:3])
        proxy.settle()
        proxy.capacity.replica = None
        proxy.after(PREFACE_LIMIT_S)
        self.assertEqual(proxy.dials, [])
        proxy.capacity.ready()
        proxy.settle()
        self.assertEqual(bytes(proxy.builders[0].received), PREFACE[:3])

    def test_late_preface(self):
        """A client that shows that it speaks HTTP/2 only after --hold-after is told at once."""
        proxy = self.proxy()
        client = proxy.client()
        proxy.after(11)
        client.send(PREFACE + SETTINGS)
        proxy.settle()
        self.assertEqual(bytes(client.received), SERVER_SETTINGS)

    def test_bulk_while_held(self):
        """A whole first window of DATA is held and reaches the builder; beyond that is a protocol error."""
        proxy, client = self.held()
        proxy.after(10)
        client.send(ACK + headers(1))
        for _ in range(4):
            client.send(DataFrame(1, data=b"x" * 16_000).serialize())
        proxy.settle()
        self.assertEqual(proxy.outcomes, [])
        client.send(DataFrame(1, data=b"x" * 16_000).serialize())
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.PROTOCOL_ERROR], []))

    def test_garbage_after_the_preface(self):
        """What is no frame ends the connection, with an outcome."""
        proxy, client = self.held(b"\xff" * 40)
        self.assertEqual((proxy.outcomes, client.was_let_go), ([Outcome.PROTOCOL_ERROR], True))


class GreetingTests(GrpcCase):
    """A builder that accepts before it can serve."""

    def waiting(self):
        """Let one client's builder accept and say nothing yet."""
        proxy, client = self.held()
        proxy.capacity.ready()
        proxy.settle()
        return proxy, client

    def test_nothing_is_replayed_before(self):
        """Nothing of the client reaches the builder before it has spoken."""
        proxy, _ = self.waiting()
        self.assertEqual(bytes(proxy.builders[0].received), b"")
        proxy.builders[0].send(GREETING[:8])
        proxy.settle()
        self.assertEqual(bytes(proxy.builders[0].received), b"")
        proxy.builders[0].send(GREETING[8:])
        proxy.settle()
        self.assertEqual(bytes(proxy.builders[0].received), PREFACE + SETTINGS)

    def test_accepts_and_closes(self):
        """A builder that closes or resets at once is dialled again until it speaks."""
        proxy, client = self.waiting()
        proxy.builders[0].hang_up()
        proxy.settle()
        proxy.after(0.05)
        proxy.builders[1].reset()
        proxy.settle()
        proxy.after(0.1)
        builder = self.greet(proxy, 2)
        self.assertEqual(bytes(builder.received), PREFACE + SETTINGS)
        self.assertEqual(bytes(client.received), GREETING)

    def test_accepts_and_is_silent(self):
        """A builder that says nothing for a while is let go and dialled again."""
        proxy, _ = self.waiting()
        proxy.after(GREETING_TIMEOUT_S)
        self.assertTrue(proxy.builders[0].was_reset)
        proxy.after(0.05)
        self.assertEqual(bytes(self.greet(proxy, 1).received), PREFACE + SETTINGS)

    def test_told_meanwhile(self):
        """While a builder is awaited the client gets its early SETTINGS, and its PINGs are answered."""
        proxy, client = self.waiting()
        proxy.after(4)
        proxy.after(4)
        proxy.after(4)
        client.send(ACK + PING)
        proxy.settle()
        self.assertEqual(bytes(client.received), SERVER_SETTINGS + PONG)

    def test_leaving_meanwhile(self):
        """A client that leaves while its builder is awaited lets go of the builder, too."""
        proxy, client = self.waiting()
        client.hang_up()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.LEFT_WHILE_HELD])
        self.assertTrue(proxy.builders[0].was_reset)

    def test_something_else(self):
        """A builder that begins with something other than SETTINGS is passed on all the same."""
        proxy, client = self.waiting()
        proxy.builders[0].send(b"HTTP/1.1 400 Bad Request\r\n")
        proxy.settle()
        self.assertEqual(bytes(client.received), b"HTTP/1.1 400 Bad Request\r\n")

    def test_refused_for_ever(self):
        """When no builder speaks before the deadline, the client reads so."""
        proxy, client = self.held(SETTINGS + headers(1), ready_wait_timeout_s=20.0)
        proxy.capacity.ready()
        for _ in range(21):
            proxy.after(1)
        self.assertIn(
            "buildkitd not ready after 20s: the builder accepts and says nothing for 5 s",
            answered(bytes(client.received))[1][1]["grpc-message"],
        )
        client.hang_up()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.BUILDER_REFUSED])


class RefusalTests(GrpcCase):
    """What a client is told when the builder does not come."""

    def message(self, client, stream=1):
        """Read the reason out of the answer."""
        return answered(bytes(client.received))[stream][1]["grpc-message"]

    def test_deadline(self):
        """At the deadline every call is answered with the time and the reason; the demand is gone."""
        proxy, client = self.held(SETTINGS + headers(1) + headers(3), ready_wait_timeout_s=300.0)
        proxy.after(10)
        client.send(ACK)
        proxy.after(290)
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.NOT_READY_IN_TIME], []))
        self.assertEqual((len(proxy.factory), proxy.factory.connections()), (1, []))
        words = "buildkitd not ready after 5m0s: pod buildkitd-0: pulling image"
        self.assertEqual([self.message(client, stream) for stream in (1, 3)], [words, words])
        client.send(headers(5))
        proxy.settle()
        self.assertEqual(self.message(client, 5), words)
        client.hang_up()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])

    def test_deadline_during_the_first_dial(self):
        """A builder that has become ready, and has not answered its first dial by then, is what is told."""
        proxy, client = self.held(SETTINGS + headers(1), ready_wait_timeout_s=300.0)
        proxy.after(10)
        client.send(ACK)
        proxy.after(289)
        proxy.leave_open = True
        proxy.capacity.ready()
        proxy.after(1)
        self.assertEqual((proxy.outcomes, len(proxy.dials)), ([Outcome.NOT_READY_IN_TIME], 1))
        words = "buildkitd not ready after 5m0s: pod buildkitd-0 (127.0.0.2): no answer yet"
        self.assertEqual(self.message(client), words)

    def test_cannot_wake(self):
        """What the cluster says is passed on at once, also before --hold-after."""
        proxy, client = self.held(SETTINGS + headers(1))
        proxy.capacity.impossible(WakeImpossible("there is no StatefulSet buildkitd"))
        proxy.settle()
        self.assertTrue(bytes(client.received).startswith(SERVER_SETTINGS))
        self.assertEqual(self.message(client), "buildkitd not ready: there is no StatefulSet buildkitd")
        client.hang_up()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.CANNOT_WAKE])

    def test_linger(self):
        """A client that was told and does not leave is dropped in the end."""
        proxy, client = self.held(SETTINGS + headers(1), ready_wait_timeout_s=1.0)
        proxy.after(1)
        proxy.after(LINGER_S - 1)
        self.assertFalse(client.was_let_go)
        proxy.after(1)
        self.assertTrue(client.was_reset)
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])

    def test_shutting_down(self):
        """A client that is held when we stop reads that."""
        proxy, client = self.held(SETTINGS + headers(1))
        proxy.factory.cut_all()
        proxy.settle()
        self.assertEqual(self.message(client), "buildkitd not ready: bkscaler is shutting down")
        proxy.factory.cut_all()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.SHUTTING_DOWN])

    def test_flood_while_lingering(self):
        """A client that floods while it is being refused is dropped."""
        proxy, client = self.held(SETTINGS + headers(1), ready_wait_timeout_s=1.0)
        proxy.after(1)
        for _ in range(10):
            client.send(DataFrame(1, data=b"x" * 16_000).serialize())
        proxy.settle()
        self.assertTrue(client.was_reset)

    def test_http1(self):
        """An HTTP/1 request gets a short 503 that says why, and the connection is closed."""
        proxy = self.proxy(ready_wait_timeout_s=30.0)
        client = proxy.client()
        client.send(b"GET / HTTP/1.1\r\nHost: builder\r\n\r\n")
        proxy.settle()
        proxy.after(29.9)
        self.assertEqual(bytes(client.received), b"")
        proxy.after(0.1)
        head, _, text = bytes(client.received).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertIn(b"Content-Length: %d" % len(text), head)
        self.assertEqual(text, b"buildkitd not ready after 30s: pod buildkitd-0: pulling image\n")
        self.assertTrue(client.saw_end)
        client.finish()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])

    def test_http1_that_had_finished(self):
        """An HTTP/1 client that has half-closed reads the 503, too."""
        proxy = self.proxy(ready_wait_timeout_s=30.0)
        client = proxy.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        client.finish()
        proxy.settle()
        proxy.after(30)
        self.assertIn(b" 503 ", bytes(client.received))
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])

    def test_http1_with_a_large_body(self):
        """An HTTP/1 client whose upload filled the buffer reads the 503, too."""
        proxy = self.proxy(ready_wait_timeout_s=30.0)
        client = proxy.client()
        client.send(b"PUT / HTTP/1.1\r\n\r\n" + b"x" * 1_000_000)
        proxy.settle()
        proxy.after(30)
        self.assertIn(b" 503 ", bytes(client.received))
        client.hang_up()
        proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])

    def test_others(self):
        """TLS clients and plain TCP clients are held in silence, and closed without a word."""
        for first in (CLIENT_HELLO, b"hello\n"):
            proxy = self.proxy(ready_wait_timeout_s=30.0)
            client = proxy.client()
            client.send(first)
            proxy.settle()
            proxy.after(30)
            self.assertEqual((bytes(client.received), client.was_let_go), (b"", True))
            self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])


class CancelTests(GrpcCase):
    """Clients that no longer want what they asked for."""

    def test_all_calls_reset(self):
        """When a client has reset all its calls its demand is gone, before it was told or after."""
        for seconds in (0, 10):
            proxy, client = self.held(SETTINGS + headers(1))
            proxy.after(seconds)
            client.send((ACK if seconds else b"") + reset(1))
            proxy.settle()
            self.assertEqual(proxy.capacity.holds, [])
            client.hang_up()
            proxy.settle()
            self.assertEqual(proxy.outcomes, [Outcome.CANCELLED_WHILE_HELD])

    def test_another_call(self):
        """A client that makes another call after all were reset wants a builder again, as at first."""
        proxy, client = self.held(SETTINGS + headers(1), ready_wait_timeout_s=30.0)
        proxy.after(20)
        client.send(ACK + reset(1))
        proxy.settle()
        proxy.after(20)
        client.send(headers(3))
        proxy.settle()
        self.assertEqual(len(proxy.capacity.holds), 1)
        proxy.after(29)
        proxy.capacity.ready()
        proxy.settle()
        builder = self.greet(proxy)
        self.assertEqual(bytes(builder.received), PREFACE + SETTINGS + headers(1) + reset(1) + headers(3))

    def test_another_call_given_up(self):
        """What such a client reads counts from its last call."""
        proxy, client = self.held(SETTINGS + headers(1), ready_wait_timeout_s=30.0)
        proxy.after(20)
        client.send(ACK + reset(1))
        proxy.settle()
        proxy.after(20)
        client.send(headers(3))
        proxy.settle()
        proxy.after(30)
        self.assertIn("after 30s", answered(bytes(client.received))[3][1]["grpc-message"])

    def test_cancelled_during_the_first_dial(self):
        """Who wants nothing any more, and stays, is told that a server is there, too, whatever came first."""
        proxy = self.proxy()
        proxy.leave_open = True
        proxy.capacity.ready()
        client = proxy.client()
        client.send(PREFACE + SETTINGS + headers(1))
        proxy.settle()
        self.assertEqual(len(proxy.dials), 1)
        client.send(reset(1))
        proxy.after(9.9)
        self.assertEqual(bytes(client.received), b"")
        proxy.after(0.2)
        self.assertEqual(bytes(client.received), SERVER_SETTINGS)

    def test_another_call_after_a_dial(self):
        """A dial that ended with the calls it was for is not what the next one waits for."""
        proxy = self.proxy(ready_wait_timeout_s=30.0)
        proxy.leave_open = True
        proxy.capacity.ready()
        client = proxy.client()
        client.send(PREFACE + SETTINGS + headers(1))
        proxy.settle()
        client.send(reset(1))
        proxy.after(20)
        proxy.capacity.replica = None
        client.send(ACK + headers(3))
        proxy.settle()
        proxy.after(30)
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])
        self.assertIn("pulling image", answered(bytes(client.received))[3][1]["grpc-message"])

    def test_no_other_call(self):
        """A client that has reset all its calls, and stays, is closed after a minute."""
        proxy, client = self.held(SETTINGS + headers(1) + reset(1))
        proxy.after(LINGER_S - 1)
        self.assertEqual(proxy.outcomes, [])
        proxy.after(1)
        self.assertEqual((proxy.outcomes, client.was_let_go), ([Outcome.CANCELLED_WHILE_HELD], True))

    def test_interrupted_before_it_was_told(self):
        """A client that makes no call but to hand in its traces wants no builder, and is told so at once."""
        proxy, client = self.held()
        proxy.after(10)
        self.assertEqual(len(proxy.capacity.holds), 1)
        traces = HeadersFrame(1, data=Encoder().encode([(":path", TRACES_PATH)]), flags=["END_HEADERS"])
        client.send(ACK + traces.serialize())
        proxy.settle()
        self.assertEqual(proxy.capacity.holds, [])
        self.assertEqual(set(answered(bytes(client.received))), {1})

    def test_cut(self):
        """Shutting down ends a client that wants no builder just now; when told twice, at once."""
        proxy, _ = self.held(SETTINGS + headers(1) + reset(1))
        for _ in range(2):
            proxy.factory.cut_all()
            proxy.settle()
        self.assertEqual(proxy.outcomes, [Outcome.SHUTTING_DOWN])

    def test_while_joined(self):
        """Once joined, resetting calls is between the client and its builder."""
        proxy, client = self.held(SETTINGS + headers(1))
        proxy.capacity.ready()
        proxy.settle()
        builder = self.greet(proxy)
        client.send(reset(1))
        proxy.settle()
        self.assertEqual((proxy.outcomes, len(proxy.capacity.holds)), ([], 1))
        self.assertTrue(bytes(builder.received).endswith(reset(1)))

    def test_socket_gone(self):
        """When the client's socket is gone, so is its demand."""
        proxy, client = self.held(SETTINGS + headers(1))
        proxy.after(10)
        client.hang_up()
        proxy.settle()
        self.assertEqual((proxy.outcomes, proxy.capacity.holds), ([Outcome.LEFT_WHILE_HELD], []))
