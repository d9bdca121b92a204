"""Tests of asking a builder whether it serves, and of dialling only one that does."""

from __future__ import annotations

import socket
from dataclasses import replace

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from bkscaler.frontend.dial import Dialer, DialFailed
from bkscaler.frontend.health import HEALTH_TIMEOUT_S, check_health
from bkscaler.model import Replica
from bkscaler.test.flow import Peer, connected, settle

SERVING, NOT_SERVING = b"\0\0\0\0\2\x08\x01", b"\0\0\0\0\2\x08\x02"
HEAD = ((":status", "200"), ("content-type", "application/grpc"))


class HealthServer(Protocol):
    """A builder's side of a health check: answers with given header fields, body and trailers."""

    def __init__(self, head=HEAD, body=SERVING, trailers=(("grpc-status", "0"),), raw=None):
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.head, self.body, self.trailers, self.raw = head, body, trailers, raw
        self.request = {}
        self.lost = False

    def connectionMade(self):
        """Greet."""
        self.http.initiate_connection()
        self.transport.write(self.raw or self.http.data_to_send())

    def dataReceived(self, data):
        """Answer a whole request."""
        for event in [] if self.raw else self.http.receive_data(data):
            if isinstance(event, RequestReceived):
                self.request = dict(event.headers)
            elif isinstance(event, StreamEnded):
                self.http.send_headers(1, self.head, end_stream=not self.trailers)
                if self.body:
                    self.http.send_data(1, self.body)
                if self.trailers:
                    self.http.send_headers(1, self.trailers, end_stream=True)
        if not self.raw:
            self.transport.write(self.http.data_to_send())

    def connectionLost(self, reason):
        """Take note."""
        self.lost = True


@implementer(IStreamClientEndpoint)
class To:
    """Leads to a protocol, or to a failure."""

    def __init__(self, clock, server=None, error=None):
        self.clock, self.server, self.error = clock, server, error

    def connect(self, protocolFactory):
        """Connect."""
        if self.error is not None:
            return fail(self.error)
        protocol = protocolFactory.buildProtocol(None)
        connected(self.clock, protocol, self.server)
        return succeed(protocol)


class CheckTests(SynchronousTestCase):
    """One health check."""

    def check(self, server):
        """Ask a server; give the Deferred of the answer."""
        self.clock = Clock()
        answer = Deferred.fromCoroutine(check_health(To(self.clock, server), self.clock))
        settle(self.clock)
        return answer

    def problem(self, server):
        """Ask a server that is not healthy; give what is said of it."""
        error = self.failureResultOf(self.check(server), DialFailed).value
        settle(self.clock)
        self.assertTrue(server.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return str(error)

    def test_serving(self):
        """A builder that serves passes; the connection is closed."""
        server = HealthServer()
        self.successResultOf(self.check(server))
        settle(self.clock)
        self.assertEqual((server.request[":path"], server.lost), ("/grpc.health.v1.Health/Check", True))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_serving(self):
        """A builder that says that it does not serve fails."""
        self.assertIn("does not serve yet", self.problem(HealthServer(body=NOT_SERVING)))
        self.assertIn("does not serve yet", self.problem(HealthServer(body=b"")))

    def test_no_such_service(self):
        """A builder without the service fails, with a hint."""
        trailers_only = (*HEAD, ("grpc-status", "12"))
        words = self.problem(HealthServer(head=trailers_only, body=b"", trailers=()))
        self.assertIn("use --readiness tcp", words)

    def test_other_answers(self):
        """Other statuses, other protocols and closed connections fail."""
        self.assertIn("status 14", self.problem(HealthServer(trailers=(("grpc-status", "14"),))))
        head = ((":status", "503"),)
        self.assertIn("status 503", self.problem(HealthServer(head=head, body=b"", trailers=())))
        self.assertIn("no HTTP/2", self.problem(HealthServer(raw=bytes(27))))

    def test_closed(self):
        """A builder that closes the connection fails."""
        server = Peer()
        answer = self.check(server)
        server.hang_up()
        settle(self.clock)
        self.assertIn("closes", str(self.failureResultOf(answer, DialFailed).value))

    def test_silent(self):
        """A builder that does not answer in time fails."""
        server = Peer()
        answer = self.check(server)
        self.clock.advance(HEALTH_TIMEOUT_S)
        settle(self.clock)
        self.assertIn("within 5 s", str(self.failureResultOf(answer, DialFailed).value))
        self.assertTrue(server.was_reset)

    def test_cancelled(self):
        """Cancelling closes the connection."""
        server = Peer()
        answer = self.check(server)
        answer.cancel()
        settle(self.clock)
        self.failureResultOf(answer)
        self.assertTrue(server.was_reset)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DialerTests(SynchronousTestCase):
    """Dialling a builder that is checked first."""

    replica = Replica(ordinal=0, name="buildkitd-0", uid="one", ip="10.0.0.1")
    successor = Replica(ordinal=0, name="buildkitd-0", uid="two", ip="10.0.0.2")

    def dialer(self):
        """Make one, whose endpoint and check are played by hand."""
        self.clock, self.checks, self.errors, self.healthy = Clock(), [], [], True

        async def check(replica):
            self.checks.append(replica.uid)
            if not self.healthy:
                raise DialFailed("the builder says that it does not serve yet")

        def connect(replica, factory):
            if self.errors:
                factory.clientConnectionFailed(None, Failure(self.errors.pop()))
            else:
                connected(self.clock, factory.buildProtocol(None), Peer())
            return lambda: None

        return Dialer(connect, check)

    def test_once_for_each_pod(self):
        """A pod is asked before the first dial, not before later ones; its successor is asked again."""
        dialer = self.dialer()
        for replica in (self.replica, self.replica, self.successor, self.successor):
            self.successResultOf(dialer.dial(replica))
        self.assertEqual(self.checks, ["one", "two"])

    def test_again_at_another_address(self):
        """A pod that was started anew, as after a reboot of its node, is the same; it is asked again."""
        dialer = self.dialer()
        for replica in (self.replica, replace(self.replica, ip="10.0.0.2")):
            self.successResultOf(dialer.dial(replica))
        self.assertEqual(self.checks, ["one", "one"])

    def test_again_after_a_failure(self):
        """After a dial that failed the pod is asked again."""
        dialer = self.dialer()
        self.successResultOf(dialer.dial(self.replica))
        self.errors.append(ConnectionRefusedError())
        words = str(self.failureResultOf(dialer.dial(self.replica), DialFailed).value)
        self.assertIn("pod buildkitd-0 (10.0.0.1): Connection was refused", words)
        self.successResultOf(dialer.dial(self.replica))
        self.assertEqual(self.checks, ["one", "one"])

    def test_not_healthy(self):
        """A pod that does not serve is not dialled, and asked again the next time."""
        dialer = self.dialer()
        self.healthy = False
        for _ in range(2):
            words = str(self.failureResultOf(dialer.dial(self.replica), DialFailed).value)
            self.assertEqual(words, "pod buildkitd-0 (10.0.0.1): the builder says that it does not serve yet")
        self.assertEqual(self.checks, ["one", "one"])

    def test_not_ready_any_more(self):
        """A pod that has ceased to be ready while it was asked is not dialled."""
        dialer = self.dialer()
        dial = dialer.dial(self.replica, is_ready=lambda: not self.checks)
        words = str(self.failureResultOf(dial, DialFailed).value)
        self.assertEqual(words, "pod buildkitd-0 (10.0.0.1): it is not ready any more")
        self.successResultOf(dialer.dial(self.replica))
        self.assertEqual(self.checks, ["one", "one"])


class RefusedTests(TestCase):
    """A dial on a real socket."""

    async def test_refused(self):
        """A connection that is refused, a moment after it was asked for, is a dial that failed."""
        from twisted.internet import reactor  # noqa: PLC0415  # the one that trial runs

        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        dialer = Dialer(lambda replica, factory: reactor.connectTCP(replica.ip, port, factory).disconnect)
        replica = Replica(ordinal=0, name="buildkitd-0", uid="u", ip="127.0.0.1")
        with self.assertRaises(DialFailed) as caught:
            await dialer.dial(replica)
        self.assertIn("pod buildkitd-0 (127.0.0.1): Connection was refused", str(caught.exception))
