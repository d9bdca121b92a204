"""Tests of held clients that speak TLS or HTTP/1, on loopback in faster time: what they get."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from http.client import HTTPConnection

import grpc
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from bkscaler.observability.outcomes import Outcome
from bkscaler.sandbox.tls import make_identity
from bkscaler.test.grpc_peers import Client, answer_of, serve
from bkscaler.test.loopback import LOOPBACK, LoopbackProxy

CLIENT_HELLO = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"


class OtherClientTests(TestCase):
    """Clients that cannot be told that a server is there."""

    timeout = 20

    def proxy(self, builder_port=0, **settings):
        """Start a proxy."""
        proxy = LoopbackProxy(reactor, builder_port, **settings)
        self.addCleanup(proxy.stop)
        return proxy

    async def test_tls(self):
        """A gRPC client that speaks TLS is held in silence, and its builder does the talking."""
        identity = make_identity([LOOPBACK], datetime.now(UTC))
        pair = (identity.server_pem, identity.server_pem)
        server, port = serve(LOOPBACK, credentials=grpc.ssl_server_credentials([pair]))
        self.addCleanup(lambda: server.stop(None).wait())
        proxy = self.proxy(port)
        client = Client(proxy.port, credentials=grpc.ssl_channel_credentials(identity.ca_pem))
        self.addCleanup(client.close)
        call = client.call()
        await proxy.time.passing(12.0)
        proxy.wake()
        self.assertEqual(await answer_of(call, reactor), b"hello")

    async def test_tls_given_up(self):
        """A TLS client whose builder does not come is closed at the deadline, and has heard nothing."""
        proxy = self.proxy(ready_wait_timeout_s=12.0)
        with socket.create_connection((LOOPBACK, proxy.port)) as client:
            client.sendall(CLIENT_HELLO)
            self.assertEqual(await deferToThread(client.recv, 100), b"")
            await proxy.when_over()
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])

    async def test_http1(self):
        """An HTTP/1 client whose builder does not come gets a 503 with the reason."""

        def ask():
            connection = HTTPConnection(LOOPBACK, proxy.port)
            connection.request("GET", "/v1")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

        proxy = self.proxy(ready_wait_timeout_s=5.0)
        self.assertEqual(
            await deferToThread(ask),
            (503, "buildkitd not ready after 5s: pod buildkitd-0: pulling image\n"),
        )
        await proxy.when_over()
        self.assertEqual(proxy.outcomes, [Outcome.NOT_READY_IN_TIME])
