"""Tests of the composition root."""

from __future__ import annotations

import errno
import os
import socket
import sys
from io import StringIO

from twisted.application.service import IServiceMaker
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.plugin import getPlugins
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.frontend.dial import DIAL_TIMEOUT_S, BuilderFactory
from bkscaler.model import Replica
from bkscaler.plugin import Options, builder_host, connector, makeService
from bkscaler.services import Listener

KUBECONFIG = """
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: test, user: {token: secret}}]
"""


class PluginCase(SynchronousTestCase):
    """Options with a kubeconfig that can be read."""

    def options(self, *words, environ=None, kubeconfig=True):
        """Parse a command line."""
        options = Options(environ or {})
        if kubeconfig:
            path = self.mktemp()
            with open(path, "w") as file:
                file.write(KUBECONFIG)
            words = ("--kubeconfig", path, *words)
        options.parseOptions(words)
        return options

    def problems(self, *words, **how):
        """Parse a bad command line; give the lines on standard error."""
        stderr = StringIO()
        self.patch(sys, "stderr", stderr)
        error = self.assertRaises(SystemExit, self.options, *words, **how)
        self.assertEqual(error.code, 1)
        return stderr.getvalue().splitlines()


class AnnouncementTests(SynchronousTestCase):
    """What twistd finds."""

    def test_found(self):
        """twistd finds one plugin of our name, whose module has what it needs."""
        found = [each for each in getPlugins(IServiceMaker) if each.tapname == "bkscaler"]
        self.assertEqual([each.module for each in found], ["bkscaler.plugin"])
        self.assertIs(namedAny(found[0].module + ".makeService"), makeService)
        self.assertIs(found[0].options, Options)


class OptionsTests(PluginCase):
    """Finding the cluster."""

    def test_kubeconfig(self):
        """The kubeconfig that is named leads to its cluster."""
        self.assertEqual(self.options().access.server, "https://127.0.0.1:6443")

    def test_nowhere(self):
        """Neither in a cluster nor given a kubeconfig: it says so, and what to do."""
        (problem,) = self.problems(kubeconfig=False)
        self.assertIn("neither in a cluster", problem)
        self.assertIn("--kubeconfig FILE", problem)

    def test_unusable_kubeconfig(self):
        """A kubeconfig that cannot be used is named, with what is wrong with it."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("current-context: nowhere")
        (problem,) = self.problems("--kubeconfig", path)
        self.assertIn(path, problem)
        self.assertIn("nowhere", problem)


class ConnectorTests(PluginCase):
    """How a replica is connected to."""

    replica = Replica(ordinal=0, name="buildkitd-0", uid="u", ip="10.1.2.3")

    def dial(self, *words, replica=replica):
        """Begin to connect to a replica; give the reactor, and what comes of it."""
        reactor, factory = MemoryReactorClock(), BuilderFactory()
        factory.give_up = connector(self.options(*words).settings, reactor)(replica, factory)
        return reactor, factory.arrived

    def test_pod_ip(self):
        """By default the pod's IP is dialled, IPv4 or IPv6, at the target port, for a few seconds."""
        reactor, _ = self.dial("--target-port", "1234")
        host, port, _, timeout_s, _ = reactor.tcpClients[0]
        self.assertEqual((host, port, timeout_s), ("10.1.2.3", 1234, DIAL_TIMEOUT_S))
        six = Replica(ordinal=0, name="buildkitd-0", uid="u", ip="fd00::1")
        self.assertEqual(self.dial(replica=six)[0].tcpClients[0][0], "fd00::1")

    def test_end(self):
        """Cancelling ends the try."""
        reactor, arrived = self.dial()
        arrived.cancel()
        self.failureResultOf(arrived, CancelledError)
        self.assertTrue(reactor.connectors[0]._disconnected)

    def test_dns(self):
        """``--target-address dns`` dials the pod's name in the headless Service; that can be ended, too."""
        settings = self.options(
            "--target-address", "dns", "--sts-namespace", "ci", "--cluster-domain", "x.y"
        ).settings
        self.assertEqual(builder_host(settings, self.replica), "buildkitd-0.buildkitd-headless.ci.svc.x.y")
        _, arrived = self.dial("--target-address", "dns")
        arrived.cancel()
        self.failureResultOf(arrived, CancelledError)


class ServiceTests(PluginCase):
    """The service as a whole, on a reactor in memory."""

    def test_start_and_stop(self):
        """It listens on both ports and asks the API server; stopped, it leaves nothing behind."""
        reactor = MemoryReactorClock()
        service = makeService(self.options("--listen-addr", "127.0.0.1:8080"), reactor)
        self.assertEqual((reactor.tcpServers, reactor.tcpClients), ([], []))
        service.privilegedStartService()
        service.startService()
        self.assertEqual(sorted(server[0] for server in reactor.tcpServers), [8080, 9090])
        self.assertEqual([client[:2] for client in reactor.tcpClients], [("127.0.0.1", 6443)] * 2)
        stopped = service.stopService()
        for client in reactor.tcpClients:
            client[2].clientConnectionFailed(None, None)
        self.successResultOf(stopped)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_names_of_pods_that_are_not_ready(self):
        """Where pods are dialled by name before they are Ready, the log says what the Service must have."""
        words = ("--listen-addr", "127.0.0.1:8080", "--target-address", "dns")
        for readiness, warnings in (("pod", 0), ("tcp", 1), ("grpc", 1)):
            with capturedLogs() as events:
                makeService(self.options(*words, "--readiness", readiness), MemoryReactorClock())
            told = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
            self.assertEqual(len([each for each in told if "publishNotReadyAddresses" in each]), warnings)

    def test_no_admin_port(self):
        """``--admin-addr off`` opens no admin port."""
        reactor = MemoryReactorClock()
        service = makeService(self.options("--admin-addr", "off", "--listen-addr", "127.0.0.1:8080"), reactor)
        service.privilegedStartService()
        self.assertEqual([server[0] for server in reactor.tcpServers], [8080])

    def test_taken_port(self):
        """A taken port ends start-up with one line that names the setting, and status 1."""
        from twisted.internet import reactor  # noqa: PLC0415  # the one that trial runs

        with socket.create_server(("127.0.0.1", 0)) as taken:
            description = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            listener = Listener(reactor, "listen-addr", description, Factory())
            stderr = StringIO()
            self.patch(sys, "stderr", stderr)
            error = self.assertRaises(SystemExit, listener.privilegedStartService)
        self.assertEqual(error.code, 1)
        words = os.strerror(errno.EADDRINUSE)
        self.assertEqual(
            stderr.getvalue(), f"bkscaler: --listen-addr: cannot listen on {description!r}: {words}\n"
        )
