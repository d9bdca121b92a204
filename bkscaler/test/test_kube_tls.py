"""The API server's identity and ours: handshakes in memory, with the right names and with wrong ones."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
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
from bkscaler.kube.tls import ServerIdentity, certificates_in, client_certificate, key_in, no_certificate
from bkscaler.sandbox.tls import make_identity

NOW = datetime.now(UTC)
SERVER = make_identity(["kube.example", "192.0.2.1", "::1"], NOW)
STRANGER = make_identity(["kube.example"], NOW)


def client_pair(name: str) -> tuple[bytes, bytes]:
    """Make a client's certificate, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(own).issuer_name(own).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW - timedelta(hours=1)).not_valid_after(NOW + timedelta(days=1))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return (
        builder.sign(key, hashes.SHA256()).public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
    )


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
        self.connection = None

    def ask_for_certificates(self):
        """Ask clients for certificates, and take any."""
        self.context.set_verify(SSL.VERIFY_PEER, lambda *_: True)

    def serverConnectionForTLS(self, protocol):
        self.connection = SSL.Connection(self.context, None)
        return self.connection


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

    def test_unverified(self):
        """Without verification any certificate is accepted, and the name is still sent."""
        for host in (b"other.example", b"192.0.2.2", b"::2"):
            identity = ServerIdentity(ca_pem=None, verify=False)
            serving = Serving(SERVER)
            self.assertTrue(shake(identity.creatorForNetloc(host, 1), serving).done)
            sent = None if host[-1:].isdigit() else host
            self.assertEqual(serving.connection.get_servername(), sent)


class ClientCertificateTests(SynchronousTestCase):
    """Who we are, at the TLS level."""

    def shown(self, verify=True, **how):
        """Connect; give the names in the certificates that the server was shown."""
        identity = ServerIdentity(ca_pem=SERVER.ca_pem if verify else None, verify=verify, **how)
        serving = Serving(SERVER)
        serving.ask_for_certificates()
        self.assertTrue(shake(identity.creatorForNetloc(b"kube.example", 6443), serving).done)
        own = serving.connection.get_peer_certificate()
        chain = serving.connection.get_peer_cert_chain() or []
        return [each.get_subject().CN for each in ([own] if own else []) + chain]

    def test_shown(self):
        """The certificate is shown with its intermediate ones; without one nothing is."""
        certificate, key = client_pair("ci")
        ours = client_certificate(certificate + client_pair("authority")[0], key)
        self.assertEqual(self.shown(), [])
        self.assertEqual(self.shown(certificate=no_certificate), [])
        self.assertEqual(self.shown(certificate=lambda: ours), ["ci", "authority"])
        self.assertEqual(self.shown(verify=False, certificate=lambda: ours), ["ci", "authority"])
        self.assertNotIn("PKey", repr(ours))

    def test_bad_pairs(self):
        """Pairs that cannot be used are refused, also an encrypted key, which nobody is asked to open."""
        certificate, key = client_pair("ci")
        opened = serialization.load_pem_private_key(key, None)
        locked = opened.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
        for pair in ((certificate, b"junk"), (b"junk", key), (certificate, client_pair("x")[1])):
            self.assertRaises(ValueError, client_certificate, *pair)
        self.assertIn("encrypted", str(self.assertRaises(ValueError, key_in, locked)))
