"""Kubeconfig files: what is read, and what is refused by name."""

import base64
import os
from datetime import UTC, datetime
from typing import Any

import yaml
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import ConfigurationError
from bkscaler.kube.auth import CertificateFiles, NoCredentials, StaticToken, TokenFile, UserAndPassword
from bkscaler.kube.kubeconfig import find_access, load
from bkscaler.sandbox.tls import make_identity
from bkscaler.test.test_kube_tls import client_pair

CA_PEM = make_identity([], datetime(2026, 1, 1, tzinfo=UTC)).ca_pem
CA_DATA = base64.b64encode(CA_PEM).decode()
EXEC = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "login",
    "interactiveMode": "IfAvailable",
}


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


class KubeconfigCase(SynchronousTestCase):
    """Writes kubeconfigs, and collects their problems."""

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


class KubeconfigTests(KubeconfigCase):
    """One file at a time."""

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
        for server in (
            "https://a..b",
            f"https://{'a' * 64}",
            "https://a b",
            "kube:6443",
            "ftp://k",
            "https://",
            "https://k:0",
            "https://k:99999",
            "https://ü",
            7,
        ):
            self.assertIn("clusters[c].cluster.server", self.problem(kubeconfig({"server": server})))
        self.assertIn("is missing", self.problem(kubeconfig({"server": None})))
        self.assertIn("without TLS", self.problem(kubeconfig({"server": "http://k"})))
        self.assertIn("the URL", self.problem(kubeconfig({"server": "https://me:sesame@k"})))

    def test_bad_server_names(self):
        """A name that no certificate can hold is refused here, and not at each connection."""
        for name in ("a..b", "a" * 64, " ", "https://kube", "kube:6443", "*.example", 7):
            text = self.problem(kubeconfig({"tls-server-name": name}))
            self.assertIn("clusters[c].cluster.tls-server-name", text)
        for name in ("kube.example", "k", "192.0.2.7", "2001:db8::7", "bücher.example"):
            self.assertEqual(load(self.write(kubeconfig({"tls-server-name": name}))).tls_server_name, name)

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
        for field, value in [("auth-provider", {"name": "x"}), ("as", "x"), ("as-groups", ["x"])]:
            self.assertIn(f"users[u].user.{field}", self.problem(kubeconfig(user={field: value})))
        self.assertIn("clusters[c].cluster.proxy-url", self.problem(kubeconfig({"proxy-url": "http://p"})))

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

    def test_nothing_to_find_by(self):
        """An entry without a name, or of another shape, is told where something is looked for in vain."""
        server = {"server": "https://k"}
        for clusters, field in (
            (["x"], "clusters[0]: is not a mapping"),
            ([{"nme": "c", "cluster": server}], "clusters[0].name: is missing"),
            ([{"name": "other", "cluster": server}, {"name": 7}], "clusters[1].name: 7 is not text"),
        ):
            self.assertIn(field, self.problem(kubeconfig(clusters=clusters)))

    def test_other_file(self):
        """A manifest that was named by mistake is told by its kind, and another version by its number."""
        self.assertIn("kind: 'Pod' is not Config", self.problem(kubeconfig(kind="Pod")))
        self.assertIn("apiVersion: 'v2' is not v1", self.problem(kubeconfig(apiVersion="v2")))

    def test_unusable_characters(self):
        """What no path, name or header can hold is refused with its field; no problem has a second line."""
        for char in ("\x00", "\x1b", "\ud800"):
            for user in ({"tokenFile": f"a{char}"}, {"username": "me", "password": f"sesame{char}"}):
                self.assertIn("holds a control character", self.problem(kubeconfig(user=user)))
            cluster = {"certificate-authority-data": None, "certificate-authority": f"a{char}"}
            self.assertIn("cluster.certificate-authority: holds", self.problem(kubeconfig(cluster)))
            text = self.problem(kubeconfig(user={"exec": {**EXEC, "args": ["a", f"sesame{char}"]}}))
            self.assertIn("exec.args[1]: holds", text)
        self.assertIn("a b", self.problem(kubeconfig(user={"tokenFile": "a\nb"})))
        self.assertIn("a b", self.problem(kubeconfig(users=[{"name": "a\nb"}])))

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

    def test_context_without_kubeconfig(self):
        """A context needs a kubeconfig to be in."""
        error = self.assertRaises(ConfigurationError, find_access, kubeconfig=None, environ={}, context="x")
        self.assertIn("--context", error.problems[0])


class IdentityTests(KubeconfigCase):
    """Everything that says who we are, or whom we believe, beside tokens."""

    def test_password(self):
        """User and password become basic authentication; both need each other, and no token."""
        access = load(self.write(kubeconfig(user={"username": "me", "password": "sesame"})))
        self.assertIsInstance(access.credentials, UserAndPassword)
        header = self.successResultOf(Deferred.fromCoroutine(access.credentials.header()))
        self.assertEqual(header, b"Basic " + base64.b64encode(b"me:sesame"))
        self.assertNotIn("sesame", repr(access))
        for user in (
            {"username": "me", "password": "sesame", "token": "x"},
            {"username": "me", "tokenFile": "x"},
            {"password": "sesame"},
            {"username": "me:you", "password": "sesame"},
            {"username": "me", "password": 7},
        ):
            self.assertIn("users[u].user.", self.problem(kubeconfig(user=user)))
        plain = kubeconfig({"server": "http://k"}, user={"username": "me", "password": "sesame"})
        self.assertIn("without TLS", self.problem(plain))

    def test_certificate_data(self):
        """A certificate and its key may stand in the kubeconfig, or one of them in a file beside it."""
        certificate, key = client_pair("ci")
        data = {"client-certificate-data": base64.b64encode(certificate).decode()}
        encoded = base64.b64encode(key).decode()
        access = load(self.write(kubeconfig(user={**data, "client-key-data": encoded})))
        self.assertEqual(access.certificate().certificate.get_subject().CN, "ci")
        path = self.write(kubeconfig(user={**data, "client-key": "key"}))
        self.beside("key", key)
        self.assertEqual(load(path).certificate().certificate.get_subject().CN, "ci")
        self.assertNotIn(encoded, repr(access))

    def test_certificate_files(self):
        """Files are read anew for each connection; when that fails the last good pair stays in use."""
        path = self.write(kubeconfig(user={"client-certificate": "crt", "client-key": "key"}))
        pairs = {name: client_pair(name) for name in ("one", "two")}
        self.beside("crt", pairs["one"][0])
        self.beside("key", pairs["one"][1])
        source = load(path).certificate
        for name, (certificate, key) in pairs.items():
            self.beside("crt", certificate)
            self.beside("key", key)
            self.assertEqual(source().certificate.get_subject().CN, name)
        self.assertIsInstance(source, CertificateFiles)
        self.beside("key", b"junk")
        for _ in range(2):
            self.assertEqual(source().certificate.get_subject().CN, "two")

    def test_bad_certificates(self):
        """A certificate without its key, or with another's, and files that are not there are refused."""
        certificate, key = client_pair("ci")
        other = base64.b64encode(client_pair("x")[1]).decode()
        data = base64.b64encode(certificate).decode()
        for user, field in (
            ({"client-certificate-data": data}, "client-key"),
            ({"client-key-data": base64.b64encode(key).decode()}, "client-certificate"),
            ({"client-certificate-data": data, "client-key-data": other}, "client-certificate-data"),
            ({"client-certificate-data": "!!!", "client-key-data": other}, "client-certificate-data"),
            ({"client-certificate-data": data, "client-key": "no"}, "client-key"),
            ({"client-certificate": "no", "client-key": "no"}, "client-certificate"),
            ({"client-certificate": 7, "client-key": "no"}, "client-certificate"),
        ):
            text = self.problem(kubeconfig(user=user))
            self.assertIn(f"users[u].user.{field}", text)
            self.assertNotIn(other, text)

    def test_unverified(self):
        """Verification can be switched off, not together with an authority."""
        access = load(
            self.write(kubeconfig({"insecure-skip-tls-verify": True, "certificate-authority-data": None}))
        )
        self.assertFalse(access.verify)
        self.assertTrue(load(self.write(kubeconfig({"insecure-skip-tls-verify": False}))).verify)
        for value in (True, "yes"):
            text = self.problem(kubeconfig({"insecure-skip-tls-verify": value}))
            self.assertIn("clusters[c].cluster.insecure-skip-tls-verify", text)

    def test_exec(self):
        """A program is described whole; a path with a slash is relative to the kubeconfig."""
        program = {
            **EXEC, "command": "./bin/login", "args": ["--now"], "env": [{"name": "A", "value": "sesame"}],
            "provideClusterInfo": True, "installHint": "get it",
        }  # fmt: skip
        extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}
        path = self.write(kubeconfig({"extensions": [extension]}, user={"exec": program}))
        access = load(path)
        plugin = access.plugin
        self.assertEqual(plugin.command, os.path.join(os.path.abspath(self.directory), "./bin/login"))
        self.assertEqual((plugin.args, plugin.env), (("--now",), {"A": "sesame"}))
        self.assertEqual(plugin.install_hint, "get it")
        self.assertEqual(
            plugin.cluster,
            {
                "server": "https://192.0.2.1:6443",
                "certificate-authority-data": CA_DATA,
                "config": {"audience": "x"},
            },
        )
        self.assertNotIn("sesame", repr(access))
        found_in_path = load(self.write(kubeconfig(user={"exec": EXEC}))).plugin
        self.assertEqual((found_in_path.command, found_in_path.cluster), ("login", None))

    def test_exec_beta(self):
        """The version before, which providers still write, need not say whether it is interactive."""
        program = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "login"}
        self.assertEqual(load(self.write(kubeconfig(user={"exec": program}))).plugin.command, "login")

    def test_bad_exec(self):
        """What keeps a program from being run as it is meant is refused, field by field."""
        for change, field in (
            ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "apiVersion"),
            ({"apiVersion": None}, "apiVersion"),
            ({"command": ""}, "command"),
            ({"command": 7}, "command"),
            ({"interactiveMode": "Always"}, "interactiveMode"),
            ({"interactiveMode": None}, "interactiveMode"),
            ({"interactiveMode": "never"}, "interactiveMode"),
            ({"args": "x"}, "args"),
            ({"args": [1]}, "args"),
            ({"env": {"A": "sesame"}}, "env"),
            ({"env": ["A=sesame"]}, "env[0]"),
            ({"env": [{"value": "sesame"}]}, "env[0].name"),
            ({"env": [{"name": "A", "value": 7}]}, "env[0].value"),
            ({"provideClusterInfo": "yes"}, "provideClusterInfo"),
        ):
            text = self.problem(kubeconfig(user={"exec": {**EXEC, **change}}))
            self.assertIn(f"users[u].user.exec.{field}", text)
        self.assertIn("users[u].user.exec", self.problem(kubeconfig(user={"exec": "login"})))
        self.assertIn("there is token", self.problem(kubeconfig(user={"exec": EXEC, "token": "sesame"})))
        self.assertIn("https", self.problem(kubeconfig({"server": "http://k"}, user={"exec": EXEC})))


class MergeTests(KubeconfigCase):
    """Several files."""

    def test_first_wins(self):
        """Of two entries of one name the first file's is taken whole, and so is the first current context."""
        first = self.write({"users": [{"name": "u", "user": {"tokenFile": "token"}}]})
        self.beside("token", b"from-first")
        second = self.write(kubeconfig())
        third = self.write(kubeconfig({"server": "https://third"}, **{"current-context": "anonymous"}))
        access = load(f"{first}:{second}:/nowhere::{third}")
        self.assertEqual(access.server, "https://192.0.2.1:6443")
        header = self.successResultOf(Deferred.fromCoroutine(access.credentials.header()))
        self.assertEqual(header, b"Bearer from-first")
        self.assertEqual(access.source, f"{second}, context main")

    def test_problems_name_their_file(self):
        """A problem names the file that the entry stands in; what is nowhere names them all."""
        first, second = self.write(kubeconfig({"server": 7})), self.write(kubeconfig())
        error = self.assertRaises(ConfigurationError, load, f"{second}:{first}", "other")
        self.assertIn(f"{second}:{first}: --context: 'other'", error.problems[0])
        error = self.assertRaises(ConfigurationError, load, f"{first}:{second}")
        self.assertIn(f"{first}: clusters[c].cluster.server", error.problems[0])

    def test_empty_file(self):
        """An empty file among others is no problem; alone it is."""
        empty, full = self.write(b""), self.write(kubeconfig())
        self.assertEqual(load(f"{empty}:{full}").source, f"{full}, context main")
        self.problem(b"")

    def test_twice(self):
        """An entry that stands twice in one file is refused, as kubectl does."""
        user = {"name": "u", "user": {"token": "sesame"}}
        self.assertIn("'u' twice", self.problem(kubeconfig(users=[user, user])))
