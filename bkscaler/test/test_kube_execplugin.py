"""Credentials from a program: when it runs, what its answer may hold, and what is told of failures."""

from __future__ import annotations

import json
import os
import stat
import sys
from datetime import UTC, datetime, timedelta

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bkscaler.errors import ApiUnreachable
from bkscaler.kube import execplugin
from bkscaler.kube.auth import ExecPlugin
from bkscaler.kube.execplugin import PluginCredentials, read_answer, runner
from bkscaler.test.test_kube_support import Outcome
from bkscaler.test.test_kube_tls import client_pair

V1 = "client.authentication.k8s.io/v1"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def answer(version: str = V1, **status) -> bytes:
    """Make what a program prints."""
    return json.dumps({"kind": "ExecCredential", "apiVersion": version, "status": status}).encode()


class PluginCredentialsTests(SynchronousTestCase):
    """When the program runs, with the program played by hand."""

    def setUp(self):
        self.clock = Clock()
        self.runs, self.told = [], []
        self.credentials = self.make()

    def make(self, **plugin):
        """Make credentials."""
        spec = ExecPlugin(**{"command": "login", "api_version": V1, "where": "file: users[u].exec", **plugin})
        return PluginCredentials(
            spec,
            run=self.run_by_hand,
            clock=self.clock,
            now=lambda: NOON + timedelta(seconds=self.clock.seconds()),
            random=lambda: 0.0,
        )

    def run_by_hand(self, plugin, further):
        """Start a run."""
        self.told.append(json.loads(further["KUBERNETES_EXEC_INFO"]))
        self.runs.append(Deferred())
        return self.runs[-1]

    def ask(self):
        """Ask for the header."""
        return Outcome(Deferred.fromCoroutine(self.credentials.header()))

    def refuse(self):
        """Say that the server has answered 401."""
        self.successResultOf(Deferred.fromCoroutine(self.credentials.reread()))

    def given(self, token: str = "one", **more):
        """Ask, and let the program give a token."""
        asked = self.ask()
        self.runs[-1].callback(answer(token=token, **more))
        return asked.result

    def test_one_run_for_all(self):
        """Requests that come while the program runs wait for the same run; later ones need none."""
        asked = [self.ask() for _ in range(3)]
        asked[1].cancel()
        self.assertEqual(len(self.runs), 1)
        self.runs[0].callback(answer(token="one"))
        self.assertEqual([a.result for a in asked], [b"Bearer one", None, b"Bearer one"])
        self.assertEqual(self.ask().result, b"Bearer one")
        self.assertEqual(len(self.runs), 1)

    def test_what_it_is_told(self):
        """The program is told the version, that nobody can be asked, and of the cluster if it is wanted."""
        self.ask()
        self.credentials = self.make(cluster={"server": "https://k"})
        self.ask()
        self.assertEqual(
            self.told[0], {"kind": "ExecCredential", "apiVersion": V1, "spec": {"interactive": False}}
        )
        self.assertEqual(self.told[1]["spec"]["cluster"], {"server": "https://k"})

    def test_expiry(self):
        """What is about to expire is renewed with the next request; the old one serves if that fails."""
        self.given(expirationTimestamp="2026-01-01T12:10:00Z")
        self.clock.advance(569)
        self.assertEqual(self.ask().result, b"Bearer one")
        self.clock.advance(2)
        asked = self.ask()
        self.runs[1].errback(ValueError("the program ended with 1"))
        self.assertEqual(asked.result, b"Bearer one")
        self.clock.advance(30)
        asked = self.ask()
        self.runs[2].errback(ValueError("the program ended with 1"))
        self.assertIsInstance(asked.error, ApiUnreachable)

    def test_after_401(self):
        """After a 401 the program runs again; with something new, requests go on."""
        self.given()
        self.clock.advance(100)
        self.refuse()
        self.assertEqual(self.given("two"), b"Bearer two")

    def test_several_401s(self):
        """Requests that were refused together cause one run, not one each."""
        self.given()
        self.clock.advance(100)
        self.refuse()
        asked = self.ask()
        self.refuse()
        self.runs[1].callback(answer(token="two"))
        self.assertEqual(asked.result, b"Bearer two")
        self.refuse()
        self.assertEqual(self.ask().result, b"Bearer two")
        self.assertEqual(len(self.runs), 2)

    def test_refused_for_good(self):
        """When the server refuses all that the program gives, it runs less and less often."""
        self.given()
        for _ in range(600):
            self.refuse()
            self.ask()
            if not self.runs[-1].called:
                self.runs[-1].callback(answer(token="x"))
            self.clock.advance(1)
        self.assertLess(len(self.runs), 100)

    def test_failures(self):
        """A program that fails is told once in the log, and is not run for every request."""
        for _ in range(60):
            asked = self.ask()
            if not self.runs[-1].called:
                self.runs[-1].errback(ValueError("the program ended with 1: no session"))
            self.assertIsInstance(asked.error, ApiUnreachable)
            self.assertFalse(asked.error.sent)
            self.assertIn("users[u].exec: the program ended with 1: no session", str(asked.error))
            self.clock.advance(1)
        self.assertLess(len(self.runs), 12)

    def test_expired_at_once(self):
        """What has expired when it is given is not used."""
        asked = self.ask()
        self.runs[0].callback(answer(token="x", expirationTimestamp="2026-01-01T11:00:00+00:00"))
        self.assertIn("has expired", str(asked.error))

    def test_certificate(self):
        """A certificate is given to connections; there is no header then."""
        certificate, key = client_pair("ci")
        self.assertIsNone(self.credentials.certificate())
        asked = self.ask()
        self.runs[0].callback(answer(clientCertificateData=certificate.decode(), clientKeyData=key.decode()))
        self.assertTrue(asked.done)
        self.assertIsNone(asked.result)
        self.assertIsNotNone(self.credentials.certificate())

    def test_stop(self):
        """Stopping ends a run; who waits is told."""
        self.credentials.stop()
        asked = self.ask()
        self.credentials.stop()
        self.assertIsInstance(asked.error, ApiUnreachable)

    def test_repr(self):
        """The repr names the program and holds no secret."""
        spec = ExecPlugin(command="login", args=("sesame",), env={"A": "sesame"}, api_version=V1)
        self.assertEqual(repr(self.credentials), "<PluginCredentials login>")
        self.assertNotIn("sesame", repr(spec))


class AnswerTests(SynchronousTestCase):
    """What a program may print."""

    def test_bad(self):
        """What cannot be used is refused in words that quote no secret."""
        certificate, key = client_pair("ci")
        other = client_pair("other")[1]
        bad = [
            b"", b"sesame", b"[]", b'{"kind": "ExecCredential"}', answer(), answer(token=5),
            answer("client.authentication.k8s.io/v1beta1", token="x"), answer(token="sesame x"),
            answer(clientCertificateData=certificate.decode()), answer(clientKeyData=key.decode()),
            answer(token="x", expirationTimestamp="soon"),
            answer(clientCertificateData=certificate.decode(), clientKeyData=other.decode()),
            answer(clientCertificateData="x", clientKeyData=key.decode()),
        ]  # fmt: skip
        for output in bad:
            error = self.assertRaises(ValueError, read_answer, output, V1)
            self.assertNotIn("sesame", str(error))

    def test_good(self):
        """A token, with or without a date, of any zone."""
        self.assertIsNone(read_answer(answer(token="x"), V1).expires)
        self.assertIsNone(read_answer(answer(token="x", expirationTimestamp=None), V1).expires)
        for text in ("2026-01-01T12:00:00Z", "2026-01-01T14:00:00+02:00", "2026-01-01T12:00:00"):
            self.assertEqual(read_answer(answer(token="x", expirationTimestamp=text), V1).expires, NOON)


class RunnerTests(TestCase):
    """Real programs."""

    def start(self, script: str, *args: str, **plugin) -> Deferred[bytes]:
        """Run a script."""
        from twisted.internet import reactor  # noqa: PLC0415  # the one that trial runs

        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write(f"#!{sys.executable}\n{script}\n")
        os.chmod(path, stat.S_IRWXU)
        spec = ExecPlugin(**{"command": path, "args": args, "api_version": V1, **plugin})
        run = runner(reactor, {"PATH": os.environ["PATH"]})
        return ensureDeferred(run(spec, {"FURTHER": "f"}))

    async def test_arguments_and_environment(self):
        """The program gets its arguments, its variables and ours, and nothing on standard input."""
        script = (
            "import os, sys; print(sys.argv[1:], os.environ['A'], os.environ['FURTHER'], sys.stdin.read())"
        )
        output = await self.start(script, "x", "y z", env={"A": "a"})
        self.assertEqual(output, b"['x', 'y z'] a f \n")

    async def test_failure(self):
        """A program that fails is told with its status and its last line, without what may be a secret."""
        token = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.abc"
        script = f"import sys; print('sesame'); sys.exit('first\\nlog in again, {token}')"
        error = await self.assertFailure(self.start(script), ValueError)
        self.assertEqual(str(error), "the program ended with 1: log in again, (hidden)")

    async def test_signal(self):
        """A program that is killed is told so."""
        error = await self.assertFailure(self.start("import os; os.kill(os.getpid(), 9)"), ValueError)
        self.assertEqual(str(error), "the program was ended by signal 9")

    async def test_too_slow(self):
        """A program that takes too long is ended, though its children hold its output open."""
        self.patch(execplugin, "RUN_LIMIT_S", 0.3)
        script = "import subprocess; subprocess.run(['sleep', '2'])"
        error = await self.assertFailure(self.start(script), ValueError)
        self.assertEqual(str(error), "the program took longer than 0.3 s")

    async def test_too_much(self):
        """A program that does not stop talking is ended."""
        error = await self.assertFailure(self.start("while True: print('x' * 100000)"), ValueError)
        self.assertIn("says too much", str(error))

    async def test_not_there(self):
        """A program that is not there is named, with the hint on how to install it."""
        missing = self.start("", command="no-such-program", install_hint="see\nhttps://x")
        error = await self.assertFailure(missing, ValueError)
        self.assertEqual(str(error), "there is no program 'no-such-program'; see https://x")
        await self.assertFailure(self.start("", command="/etc/passwd"), ValueError)

    async def test_found_in_path(self):
        """A name without a slash is looked up in PATH."""
        self.assertEqual(await self.start("", "x", command="echo"), b"x\n")
