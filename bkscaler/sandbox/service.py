"""
The sandbox as a Twisted service: a cluster behind HTTPS, with a kubeconfig that leads to it.

:func:`makeSandbox` is the only place that joins the cluster to the network and to processes. Without
either, in tests and simulations, use :func:`bkscaler.sandbox.cluster.make_cluster`::

    from treq.testing import RequestTraversalAgent
    from twisted.internet.task import Clock

    clock = Clock()
    cluster = make_cluster(ClusterSettings(start_delay_s=0.5), clock)
    cluster.start()
    agent = RequestTraversalAgent(cluster.root)
    # every request needs the header  Authorization: Bearer <cluster.token>
    # (cluster.root.tokens = None switches that off)
    cluster.set_replicas(1)
    clock.pump([0.01] * 100)                # buildkitd-0 is Ready now
    cluster.runner.containers["buildkitd-0"].exit(1)        # it crashes
    cluster.runner.ready_after_s = None     # later pods wait for containers[name].set_ready()
    cluster.behaviour.failure = FailureMode.IMAGEPULL       # later pods fail
    cluster.state.compact()                 # older versions are 410 now
    cluster.root.faults = lambda method, uri: Fault(code=429)
    cluster.stop()                          # leaves no delayed call behind

A watch through ``RequestTraversalAgent`` needs ``agent.flush()`` after the clock has moved.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.web.server import Site

from bkscaler.sandbox.backends import Backend, Command, buildkitd_command, choose, echo_command
from bkscaler.sandbox.cluster import Cluster, make_cluster
from bkscaler.sandbox.kubeconfig import kubeconfig_text, write_private_file
from bkscaler.sandbox.objects import Now, Random
from bkscaler.sandbox.options import SandboxSettings
from bkscaler.sandbox.processes import LocalRunner
from bkscaler.sandbox.tls import ServerIdentity, make_identity

IDLE_CONNECTION_S = 180.0
"""Seconds an HTTP connection without a request is kept; a real server keeps it about as long."""

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ApiSite(Site):
    """The API's site; it speaks HTTP/1.1 only, whose watches are one connection each."""

    def acceptableProtocols(self) -> list[bytes]:
        """Name what TLS may negotiate."""
        return [b"http/1.1"]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """
    Where a sandbox is reached.

    :param url: URL of the API.
    :param kubeconfig: path of the file for clients.
    :param statefulset: ``namespace/name`` of the StatefulSet.
    """

    url: str
    kubeconfig: str
    statefulset: str


class SandboxService(Service):
    """
    One sandbox on the network. After :meth:`stopService` it cannot be started again.

    :param settings: what it was told.
    :param cluster: the cluster; started and stopped with the service.
    :param identity: its certificates.
    :param scratch: directory for the pods, removed at the end, or None.
    """

    name = "sandbox"

    def __init__(
        self,
        settings: SandboxSettings,
        cluster: Cluster,
        identity: ServerIdentity,
        reactor: Any,
        *,
        scratch: str | None = None,
    ) -> None:
        self.cluster = cluster
        self._settings = settings
        self._identity = identity
        self._reactor = reactor
        self._scratch = scratch
        self._port: IListeningPort | None = None

    def __repr__(self) -> str:
        return f"<SandboxService {self.cluster!r}>"

    async def listen(self) -> Ready:
        """
        Start the service, listen, and write the kubeconfig. Called once, instead of ``startService``.

        :returns: where it is reached.
        :raises CannotListenError: when the address is taken.
        :raises OSError: when the kubeconfig cannot be written.
        """
        settings = self._settings
        self.startService()
        site = ApiSite(self.cluster.root, reactor=self._reactor, timeout=IDLE_CONNECTION_S)  # type: ignore[no-untyped-call]
        endpoint = SSL4ServerEndpoint(
            self._reactor, settings.port, self._identity.context_factory(), interface=settings.host
        )
        self._port = await endpoint.listen(site)
        host = _WILDCARDS.get(settings.host, settings.host)
        shown = f"[{host}]" if ":" in host else host
        url = f"https://{shown}:{getattr(self._port.getHost(), 'port', 0)}"
        text = kubeconfig_text(
            server=url,
            ca_pem=self._identity.ca_pem,
            token=self.cluster.token,
            namespace=settings.cluster.namespace,
        )
        write_private_file(settings.kubeconfig, text)
        statefulset = f"{settings.cluster.namespace}/{settings.cluster.statefulset}"
        return Ready(url=url, kubeconfig=settings.kubeconfig, statefulset=statefulset)

    def startService(self) -> None:
        """Let the cluster work."""
        super().startService()  # type: ignore[no-untyped-call]
        self.cluster.start()

    def stopService(self) -> Deferred[None]:
        """
        End everything.

        :returns: fires with None when nothing listens and no pod's process is left.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        await self.cluster.stop()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _command_of(settings: SandboxSettings) -> tuple[Command, str | None]:
    """Give the pods' program, and the scratch directory it needs or None."""
    if settings.command is not None:
        return settings.command, None
    if choose(settings.backend) is Backend.ECHO:
        return echo_command, None
    scratch = tempfile.mkdtemp(prefix="bkscaler-sandbox-")
    return buildkitd_command(scratch), scratch


def makeSandbox(  # named as Twisted names its makers
    settings: SandboxSettings, reactor: Any, *, now: Now, random: Random
) -> SandboxService:
    """
    Make a sandbox with a network and processes. Nothing listens and nothing runs yet.

    :param settings: from :func:`~bkscaler.sandbox.options.read_settings`, or made by hand.
    :param reactor: listens, spawns, connects and keeps time.
    :param now: wall clock.
    :param random: chance for uids, addresses and the token, so it must not be guessable.
    :raises ConfigurationError: when buildkitd was asked for and cannot run here.
    """
    command, scratch = _command_of(settings)
    runner = LocalRunner(reactor, random=random, command=command)
    cluster = make_cluster(settings.cluster, reactor, now=now, random=random, runner=runner)
    host = _WILDCARDS.get(settings.host, settings.host)
    identity = make_identity([host], now())
    return SandboxService(settings, cluster, identity, reactor, scratch=scratch)
