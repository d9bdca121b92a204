"""Kubeconfig files: what is read, and what is refused by name."""

import base64
import os
from datetime import UTC, datetime
from typing import Any

import yaml
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import ConfigurationError
from bkscaler.kube.auth import NoCredentials, StaticToken, TokenFile
from bkscaler.kube.kubeconfig import find_access, load
from bkscaler.sandbox.tls import make_identity

CA_PEM = make_identity([], datetime(2026, 1, 1, tzinfo=UTC)).ca_pem
CA_DATA = base64.b64encode(CA_PEM).decode()


def kubeconfig(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **top: Any) -> Any:
    """Make the content of a kubeconfig; parts can be replaced."""
    server = {"server": "https://192.0.2.1:6443", "certificate-authority-data": CA_DATA}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "contexts": [
            {"name": "main", "context": {"cluster": "c", "user": "u", "namespace": "ignored"}},
            {"name": "anonymous", "context": {"cluster": "c"}},
        ],
        "clusters": [{"name": "c", "cluster": {**server, **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": "sesame"} if user is None else user}],
        **top,
    }


class KubeconfigTests(SynchronousTestCase):
    """One file at a time."""

    def write(self, content: Any) -> str:
        """Write a kubeconfig into a directory of its own."""
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        path = os.path.join(self.directory, "config")
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
        return path

    def beside(self, name: str, content: bytes) -> None:
        """Write a file beside the kubeconfig."""
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(content)

    def problem(self, content: Any, context: str | None = None) -> str:
        """Give the one problem of a file that must be refused; it names the file and holds no secret."""
        path = self.write(content)
        error = self.assertRaises(ConfigurationError, load, path, context)
        self.assertEqual(len(error.problems), 1)
        self.assertTrue(error.problems[0].startswith(f"{path}: "), error.problems)
        self.assertNotIn("sesame", error.problems[0])
        self.assertNotIn("\n", error.problems[0])
        return error.problems[0]

    def test_token_and_data(self):
        """The current context gives server, authorities and token."""
        access = load(self.write(kubeconfig()))
        self.assertEqual((access.server, access.ca_pem), ("https://192.0.2.1:6443", CA_PEM))
        header = self.successResultOf(Deferred.fromCoroutine(access.credentials.header()))
        self.assertEqual(header, b"Bearer sesame")
        self.assertIn("context main", access.source)

    def test_other_context(self):
        """A context can be chosen by name; one without a user has no credentials."""
        self.assertIsInstance(load(self.write(kubeconfig()), "anonymous").credentials, NoCredentials)

    def test_files_beside(self):
        """Files are relative to the kubeconfig, and data wins over a file of authorities."""
        path = self.write(
            kubeconfig(
                {"certificate-authority-data": "", "certificate-authority": "ca.crt"}, {"tokenFile": "token"}
            )
        )
        self.beside("ca.crt", CA_PEM)
        self.beside("token", b"from file\n".replace(b" ", b"-"))
        access = load(path)
        self.assertEqual(access.ca_pem, CA_PEM)
        self.assertIsInstance(access.credentials, TokenFile)
        both = self.write(kubeconfig({"certificate-authority": "missing"}))
        self.assertEqual(load(both).ca_pem, CA_PEM)

    def test_token_file_wins(self):
        """Of a token and a token file the file wins, as in kubectl."""
        path = self.write(kubeconfig(user={"token": "sesame", "tokenFile": "token"}))
        self.beside("token", b"x")
        self.assertIsInstance(load(path).credentials, TokenFile)

    def test_no_authority(self):
        """Without authorities the system's are trusted; another server name is passed on."""
        access = load(
            self.write(kubeconfig({"certificate-authority-data": None, "tls-server-name": "kube.example"}))
        )
        self.assertEqual((access.ca_pem, access.tls_server_name), (None, "kube.example"))

    def test_servers(self):
        """A path and an IPv6 address are accepted, and a slash at the end is dropped."""
        for server in ("https://k/prefix", "https://[::1]:6443", "https://kube.example"):
            self.assertEqual(load(self.write(kubeconfig({"server": f"{server}/"}))).server, server)
        plain = kubeconfig({"server": "http://127.0.0.1:8001"}, user={})
        self.assertEqual(load(self.write(plain)).server, "http://127.0.0.1:8001")

    def test_bad_servers(self):
        """What is no URL of an API server is refused, and so is a token without TLS."""
        for server in ("kube:6443", "ftp://k", "https://", "https://k:0", "https://k:99999", "https://ü", 7):
            self.assertIn("clusters[c].cluster.server", self.problem(kubeconfig({"server": server})))
        self.assertIn("is missing", self.problem(kubeconfig({"server": None})))
        self.assertIn("without TLS", self.problem(kubeconfig({"server": "http://k"})))
        self.assertIn("the URL", self.problem(kubeconfig({"server": "https://me:sesame@k"})))

    def test_bad_authorities(self):
        """Authorities that cannot be read are refused, with the field."""
        for data in ("!!!", base64.b64encode(b"nonsense").decode(), 7):
            text = self.problem(kubeconfig({"certificate-authority-data": data}))
            self.assertIn("certificate-authority-data", text)

    def test_missing_files(self):
        """Files that are named and not there are named in the problem."""
        path = self.write(kubeconfig({"certificate-authority-data": "", "certificate-authority": "no"}))
        self.assertIn("certificate-authority: ", str(self.assertRaises(ConfigurationError, load, path)))
        self.assertIn("tokenFile", self.problem(kubeconfig(user={"tokenFile": "no"})))

    def test_bad_tokens(self):
        """A token that is no text, or that no header can hold, is refused without being quoted."""
        for token in (12345, "sesame open", "sesame\n"):
            text = self.problem(kubeconfig(user={"token": token}))
            self.assertIn("users[u].user.token", text)
            self.assertNotIn("12345", text)

    def test_not_supported(self):
        """What bkscaler cannot do is refused by name instead of being left out."""
        for field, value in [("exec", {"command": "x"}), ("client-certificate", "x"), ("username", "x")]:
            self.assertIn(f"users[u].user.{field}", self.problem(kubeconfig(user={field: value})))
        for field, value in [("insecure-skip-tls-verify", True), ("proxy-url", "http://p")]:
            self.assertIn(f"clusters[c].cluster.{field}", self.problem(kubeconfig({field: value})))

    def test_dangling(self):
        """A context, cluster or user that is named and not there is told with what there is."""
        self.assertIn("main, anonymous", self.problem(kubeconfig(), "other"))
        self.assertIn("main, anonymous", self.problem(kubeconfig(**{"current-context": ""})))
        self.assertIn("(there are no users)", self.problem(kubeconfig(users=[])))
        self.assertIn("'c' is not in clusters", self.problem(kubeconfig(clusters=None)))

    def test_odd_shapes(self):
        """Sections of the wrong shape are refused in words."""
        for top in (
            {"clusters": {"c": {}}},
            {"users": "x"},
            {"contexts": [1, "x", None]},
            {"clusters": [{"name": "c", "cluster": ["x"]}]},
            {"current-context": 5},
        ):
            self.problem(kubeconfig(**top))

    def test_no_kubeconfig(self):
        """What is no YAML mapping is refused; the content is not quoted."""
        for content in (b"", b"- a\n", b"token: sesame: x\n", b"\xff\xfe\x00", b"[" * 3000, b"'"):
            self.problem(content)

    def test_unreadable(self):
        """A file that cannot be read is named with the reason."""
        error = self.assertRaises(ConfigurationError, load, self.mktemp())
        self.assertIn("No such file", error.problems[0])

    def test_find_access(self):
        """A kubeconfig that is given is used; otherwise the pod's own access, which must be there."""
        access = find_access(kubeconfig=self.write(kubeconfig()), environ={})
        self.assertIsInstance(access.credentials, StaticToken)
        error = self.assertRaises(ConfigurationError, find_access, kubeconfig=None, environ={})
        self.assertIn("--kubeconfig", error.problems[0])
