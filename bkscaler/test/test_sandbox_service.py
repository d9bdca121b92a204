"""Tests of the sandbox on the network, in this process: certificates, kubeconfig, start and stop."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bkscaler.errors import ConfigurationError
from bkscaler.sandbox.backends import Backend, buildkitd_hindrance
from bkscaler.sandbox.cluster import ClusterSettings
from bkscaler.sandbox.kubeconfig import kubeconfig_text, write_private_file
from bkscaler.sandbox.options import SandboxSettings
from bkscaler.sandbox.service import makeSandbox
from bkscaler.sandbox.tls import CLOCK_SKEW, make_identity
from bkscaler.test.cluster_client import Api

NOW = datetime.now(UTC)


class CertificateTests(SynchronousTestCase):
    """The sandbox's own certificates."""

    def test_names(self):
        """The server's certificate holds its addresses and names, and is signed by the authority."""
        identity = make_identity(["::1", "10.1.2.3", "box.example"], NOW)
        authority = x509.load_pem_x509_certificate(identity.ca_pem)
        certificate = x509.load_pem_x509_certificate(identity.server_pem)
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(
            [str(name.value) for name in names],
            ["localhost", "kubernetes.default.svc", "::1", "10.1.2.3", "box.example", "127.0.0.1"],
        )

    def test_lifetime(self):
        """A certificate is good for a client whose clock is a little late, and for more than a month."""
        certificate = x509.load_pem_x509_certificate(make_identity([], NOW).server_pem)
        self.assertLessEqual(certificate.not_valid_before_utc, NOW - CLOCK_SKEW)
        self.assertGreater(certificate.not_valid_after_utc, NOW + timedelta(days=31))

    def test_each_its_own(self):
        """Two sandboxes do not trust each other."""
        one, other = make_identity([], NOW), make_identity([], NOW)
        authority = x509.load_pem_x509_certificate(other.ca_pem)
        certificate = x509.load_pem_x509_certificate(one.server_pem)
        self.assertRaises(InvalidSignature, certificate.verify_directly_issued_by, authority)


class KubeconfigTests(SynchronousTestCase):
    """The file for clients."""

    def test_text(self):
        """The kubeconfig leads to the server with a token and the authority."""
        text = kubeconfig_text(server="https://x:1", ca_pem=b"ca", token="secret", namespace="n")
        config = yaml.safe_load(text)
        self.assertEqual(config["contexts"][0]["context"]["namespace"], "n")
        self.assertEqual(config["users"][0]["user"], {"token": "secret"})
        self.assertEqual(config["clusters"][0]["cluster"]["server"], "https://x:1")

    def test_file(self):
        """The file is the owner's only, replaces an earlier one, and leaves no other file behind."""
        directory = Path(self.mktemp())
        directory.mkdir()
        path = directory / "kc"
        path.write_text("old")
        path.chmod(0o644)
        write_private_file(str(path), "new")
        self.assertEqual((path.read_text(), stat.S_IMODE(path.stat().st_mode)), ("new", 0o600))
        self.assertEqual([entry.name for entry in directory.iterdir()], ["kc"])

    def test_file_that_cannot_be_written(self):
        """What cannot be put in place leaves nothing behind."""
        directory = Path(self.mktemp())
        (directory / "kc").mkdir(parents=True)
        self.assertRaises(OSError, write_private_file, str(directory / "kc"), "new")
        self.assertEqual([entry.name for entry in directory.iterdir()], ["kc"])


class HindranceTests(SynchronousTestCase):
    """Whether the real buildkitd can run here."""

    def path_with(self, **programs):
        """Make a directory of shell scripts the only one on PATH."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        for name, script in programs.items():
            (directory / name).write_text(f"#!/bin/sh\n{script}\n")
            (directory / name).chmod(0o755)
        self.patch(os, "environ", {**os.environ, "PATH": str(directory)})
        self.patch(os, "geteuid", lambda: 0)

    def test_nothing_there(self):
        """Without buildkitd, or without a runtime for it, it says what is missing."""
        self.path_with()
        self.assertEqual(buildkitd_hindrance(), "buildkitd is not on PATH")
        self.path_with(buildkitd="exit 0")
        self.assertIn("runc", buildkitd_hindrance())

    def test_not_root(self):
        """Without the rights it needs, it says so."""
        self.path_with(buildkitd="exit 0", runc="exit 0")
        self.patch(os, "geteuid", lambda: 1000)
        self.assertIn("root", buildkitd_hindrance())

    def test_does_it_run(self):
        """With all of it, its version decides."""
        self.path_with(buildkitd="exit 1", runc="exit 0")
        self.assertIn("does not run", buildkitd_hindrance())
        self.path_with(buildkitd="exit 0", crun="exit 0")
        self.assertEqual(buildkitd_hindrance(), "")


class ServiceTests(TestCase):
    """The sandbox as a service on a real reactor."""

    timeout = 30

    def make(self, **settings):
        """Make a sandbox that listens on a port of its own."""
        settings = {"kubeconfig": self.mktemp(), "backend": Backend.ECHO, **settings}
        seed = Random(self.id()).random
        return makeSandbox(SandboxSettings(**settings), reactor, now=lambda: datetime.now(UTC), random=seed)

    async def test_start_and_stop(self):
        """It serves what its kubeconfig names, and after its stop nothing listens and no pod runs."""
        cluster = ClusterSettings(replicas=1, start_delay_s=0, stop_delay_s=0)
        service = self.make(cluster=cluster)
        try:
            ready = await service.listen()
            ran = Deferred()
            watched = service.cluster.state.subscribe(
                "pods", lambda change: _is_ready(change.object) and not ran.called and ran.callback(None)
            )
            await ran
            watched()
            api = Api(ready.kubeconfig)
            answer = await deferToThread(api.call, "GET", "/api/v1/namespaces/default/pods")
            self.assertEqual(len(answer.body["items"]), 1)
            api.close()
        finally:
            await service.stopService()
        self.assertEqual(service.cluster.runner._running, [])
        self.assertRaises(OSError, api.call, "GET", "/version")
        self.assertIn("SandboxService", repr(service))

    async def test_strangers(self):
        """A client that does not know the authority does not get through."""
        service, other = self.make(), make_identity(["127.0.0.1"], NOW)
        try:
            api = Api((await service.listen()).kubeconfig)
            api.context = ssl.create_default_context(cadata=other.ca_pem.decode())
            await self.assertFailure(deferToThread(api.call, "GET", "/version"), ssl.SSLError)
        finally:
            await service.stopService()

    async def test_ipv6(self):
        """It can listen on an IPv6 address, which the kubeconfig then names in brackets."""
        service = self.make(host="::1")
        try:
            ready = await service.listen()
            self.assertTrue(ready.url.startswith("https://[::1]:"))
            answer = await deferToThread(Api(ready.kubeconfig).call, "GET", "/version")
            self.assertEqual(answer.code, 200)
        finally:
            await service.stopService()

    def test_buildkitd_that_is_not_there(self):
        """The real builder where it cannot run is a configuration error, before anything has begun."""
        self.patch(os, "environ", {**os.environ, "PATH": ""})
        self.assertRaises(ConfigurationError, self.make, backend=Backend.BUILDKITD)


def _is_ready(pod):
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
