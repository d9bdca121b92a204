"""The API server's identity: handshakes in memory, with the right authority and name and with wrong ones."""

from datetime import UTC, datetime

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from bkscaler.kube.failures import unreachable
from bkscaler.kube.tls import ServerIdentity, certificates_in
from bkscaler.sandbox.tls import make_identity

NOW = datetime.now(UTC)
SERVER = make_identity(["kube.example", "192.0.2.1", "::1"], NOW)
STRANGER = make_identity(["kube.example"], NOW)


class Recorder(Protocol):
    """Notes whether the handshake was done, and why the connection ended."""

    done = False
    reason = None

    def connectionMade(self):
        self.transport.write(b"hello")

    def dataReceived(self, data):
        self.done = True

    def connectionLost(self, reason):
        self.reason = reason.value


@implementer(IOpenSSLServerConnectionCreator)
class Serving:
    """Makes the server's side of TLS connections."""

    def __init__(self, identity):
        self.context = PrivateCertificate.loadPEM(identity.server_pem).options().getContext()

    def serverConnectionForTLS(self, protocol):
        return SSL.Connection(self.context, None)


class OneProtocol(Factory):
    """Builds the one protocol it was given."""

    def __init__(self, only):
        self.only = only

    def buildProtocol(self, addr):
        return self.only


class Wire(StringTransport):
    """A transport that can be aborted."""

    def abortConnection(self):
        self.loseConnection()


def shake(creator, serving) -> Recorder:
    """Let a client and a server talk in memory until both are silent; give the client's end."""
    clock, ends = Clock(), []
    for tls, is_client in ((creator, True), (serving, False)):
        recorder = Recorder()
        factory = TLSMemoryBIOFactory(tls, is_client, OneProtocol(recorder), clock)
        protocol = factory.buildProtocol(None)
        transport = Wire()
        protocol.makeConnection(transport)
        ends.append((recorder, protocol, transport))
    (client, client_tls, up), (_, server_tls, down) = ends
    for _ in range(20):
        clock.advance(0)
        sent, received = up.value(), down.value()
        up.clear()
        down.clear()
        if sent:
            server_tls.dataReceived(sent)
        if received:
            client_tls.dataReceived(received)
    if up.disconnecting:
        client_tls.connectionLost(Failure(ConnectionDone()))
    return client


class ServerIdentityTests(SynchronousTestCase):
    """Whom we talk to."""

    def meet(self, host: bytes, *, ca_pem=SERVER.ca_pem, server_name=None) -> Recorder:
        """Connect to the server under a name."""
        identity = ServerIdentity(ca_pem=ca_pem, server_name=server_name)
        return shake(identity.creatorForNetloc(host, 6443), Serving(SERVER))

    def test_names_and_addresses(self):
        """The certificate may hold the host as a name or as an address, of either family."""
        for host in (b"kube.example", b"192.0.2.1", b"::1", b"[::1]", b"127.0.0.1"):
            self.assertTrue(self.meet(host).done, host)

    def test_other_name(self):
        """A certificate for another name or address is refused, before anything is sent."""
        for host in (b"other.example", b"192.0.2.2", b"::2"):
            client = self.meet(host)
            self.assertFalse(client.done)
            self.assertFalse(unreachable(client.reason).sent)

    def test_expected_name(self):
        """The name to expect may be another than the URL's host."""
        self.assertTrue(self.meet(b"10.9.9.9", server_name="kube.example").done)
        self.assertFalse(self.meet(b"kube.example", server_name="other.example").done)

    def test_stranger(self):
        """A certificate from another authority is refused, before anything is sent."""
        client = self.meet(b"kube.example", ca_pem=STRANGER.ca_pem)
        self.assertFalse(client.done)
        self.assertFalse(unreachable(client.reason).sent)
        self.assertIn("certificate verify failed", str(unreachable(client.reason)))

    def test_several_authorities(self):
        """A bundle of several authorities is trusted."""
        self.assertTrue(self.meet(b"kube.example", ca_pem=SERVER.ca_pem + STRANGER.ca_pem).done)

    def test_bundles(self):
        """A bundle without a readable certificate is refused, in words without its content."""
        self.assertEqual(len(certificates_in(SERVER.ca_pem + STRANGER.ca_pem)), 2)
        for bad in (b"", b"junk", SERVER.ca_pem[:-40] + b"\n-----END CERTIFICATE-----\n"):
            error = self.assertRaises(ValueError, certificates_in, bad)
            self.assertIn("certificate", str(error).lower())
        self.assertRaises(ValueError, ServerIdentity, ca_pem=b"junk")
