"""Credentials: token files that change, the pod's own ServiceAccount, and certificates of authorities."""

import os
from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import ConfigurationError
from bkscaler.kube.auth import (
    ClusterAccess,
    NoCredentials,
    StaticToken,
    TokenFile,
    in_cluster,
    read_ca_file,
    token_problem,
)
from bkscaler.sandbox.tls import make_identity

CA_PEM = make_identity([], datetime(2026, 1, 1, tzinfo=UTC)).ca_pem
IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def write(path: str, content: str | bytes, stamp: int = 1) -> None:
    """Replace a file, with a modification time of its own."""
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.utime(path, ns=(stamp, stamp))


class TokenTests(SynchronousTestCase):
    """Bearer tokens."""

    def header(self, credentials) -> bytes | None:
        """Give the header of the next request."""
        return self.successResultOf(Deferred.fromCoroutine(credentials.header()))

    def reread(self, credentials) -> None:
        """Say that the server has answered 401."""
        self.successResultOf(Deferred.fromCoroutine(credentials.reread()))

    def test_none_and_static(self):
        """Without credentials there is no header; a static token stays what it is."""
        self.assertIsNone(self.header(NoCredentials()))
        self.reread(NoCredentials())
        token = StaticToken("sesame")
        self.reread(token)
        self.assertEqual(self.header(token), b"Bearer sesame")

    def test_file(self):
        """A token file is stripped, and read again when it has changed."""
        path = self.mktemp()
        write(path, "one\n")
        token = TokenFile(path)
        self.assertEqual(self.header(token), b"Bearer one")
        write(path, "two\n", stamp=2)
        self.assertEqual(self.header(token), b"Bearer two")

    def test_replaced_by_link(self):
        """A token behind a link that is moved to another file, as the kubelet does it, is read again."""
        directory = self.mktemp()
        os.mkdir(directory)
        for name in ("one", "two"):
            write(os.path.join(directory, name), name)
        link = os.path.join(directory, "token")
        os.symlink("one", link)
        token = TokenFile(link)
        os.remove(link)
        os.symlink("two", link)
        self.assertEqual(self.header(token), b"Bearer two")

    def test_after_401(self):
        """After a 401 the file is read even if it seems unchanged."""
        path = self.mktemp()
        write(path, "one")
        token = TokenFile(path)
        write_stamp = os.stat(path)
        with open(path, "r+b") as file:
            file.write(b"two")
        os.utime(path, ns=(write_stamp.st_mtime_ns, write_stamp.st_mtime_ns))
        self.assertEqual(self.header(token), b"Bearer one")
        self.reread(token)
        self.assertEqual(self.header(token), b"Bearer two")

    def test_file_goes_bad(self):
        """While the file is missing, empty or garbage, the last good token stays in use."""
        path = self.mktemp()
        write(path, "one")
        token = TokenFile(path)
        os.remove(path)
        self.assertEqual(self.header(token), b"Bearer one")
        for stamp, bad in enumerate((b"", b"a b", b"\xff\xfe"), start=2):
            write(path, bad, stamp)
            self.reread(token)
            self.assertEqual(self.header(token), b"Bearer one")
        write(path, "new", stamp=9)
        self.assertEqual(self.header(token), b"Bearer new")

    def test_no_token_at_the_start(self):
        """A file that cannot be used from the beginning is a problem that names it, and quotes no token."""
        for content in (None, "", "secret\nsecret"):
            path = self.mktemp()
            if content is not None:
                write(path, content)
            error = self.assertRaises(ConfigurationError, TokenFile, path)
            self.assertIn(path, error.problems[0])
            self.assertNotIn("secret", str(error))

    def test_problems(self):
        """Only visible ASCII is a token."""
        self.assertEqual(token_problem("abc.DEF-123_~+/="), "")
        for bad in ("", "a b", "a\n", "ü", "a\x7f"):
            self.assertNotEqual(token_problem(bad), "")

    def test_reprs_are_silent(self):
        """No repr shows a token."""
        path = self.mktemp()
        write(path, "sesame")
        for credentials in (StaticToken("sesame"), TokenFile(path)):
            access = ClusterAccess(server="https://k", ca_pem=None, credentials=credentials)
            self.assertNotIn("sesame", repr(access))


class InClusterTests(SynchronousTestCase):
    """The ServiceAccount of the pod."""

    def mount(self, *, token: str | None = "sesame", ca: bytes | None = CA_PEM) -> str:
        """Make the directory that the kubelet would mount."""
        path = self.mktemp()
        os.mkdir(path)
        if token is not None:
            write(os.path.join(path, "token"), token)
        if ca is not None:
            write(os.path.join(path, "ca.crt"), ca)
        return path

    def test_access(self):
        """Server, authorities and token come from the pod; an IPv6 address is put in brackets."""
        access = in_cluster(IN_CLUSTER, self.mount())
        self.assertEqual((access.server, access.ca_pem), ("https://10.0.0.1:443", CA_PEM))
        self.assertIsInstance(access.credentials, TokenFile)
        ipv6 = in_cluster({**IN_CLUSTER, "KUBERNETES_SERVICE_HOST": "fd00::1"}, self.mount())
        self.assertEqual(ipv6.server, "https://[fd00::1]:443")

    def test_outside(self):
        """Outside a cluster, or without a token in the pod, the problem says what to do."""
        for environ, mount in [({}, self.mount()), (IN_CLUSTER, self.mount(token=None))]:
            error = self.assertRaises(ConfigurationError, in_cluster, environ, mount)
            self.assertEqual(len(error.problems), 1)
            self.assertIn("--kubeconfig", error.problems[0])

    def test_bad_mount(self):
        """A missing or broken file in the mount is named."""
        for mount in (self.mount(ca=None), self.mount(ca=b"nonsense")):
            error = self.assertRaises(ConfigurationError, in_cluster, IN_CLUSTER, mount)
            self.assertIn("ca.crt", error.problems[0])
        error = self.assertRaises(ConfigurationError, in_cluster, IN_CLUSTER, self.mount(token=""))
        self.assertIn("holds no token", error.problems[0])

    def test_ca_file(self):
        """A bundle of authorities with text around it is read; one without a certificate is a problem."""
        path = self.mktemp()
        write(path, b"# a comment\n" + CA_PEM + b"\n# another\n" + CA_PEM)
        self.assertEqual(read_ca_file(path).count(b"BEGIN CERTIFICATE"), 2)
        broken = CA_PEM.replace(b"M", b"!", 5)
        for bad in (b"", b"nonsense", broken):
            write(path, bad)
            error = self.assertRaises(ConfigurationError, read_ca_file, path, "the field")
            self.assertTrue(error.problems[0].startswith(f"the field: {path}: holds "))
