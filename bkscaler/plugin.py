"""
The composition root: from the command line to a service that twistd runs. The only module that builds.

::

    Drain ----> listener, ProxyFactory --> Session --> Scaler --> ClusterView --> ApiClient
                                              |                      |
                                              +--> Dialer, relay     +--> observations back to the Scaler

    all of these report to the Recorder; AdminSite asks it, and them, when somebody wants to know
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.task import react
from twisted.logger import Logger

from bkscaler import __version__, config
from bkscaler.config import Settings
from bkscaler.doctor import check
from bkscaler.errors import ConfigurationError
from bkscaler.frontend.acceptor import Ports
from bkscaler.frontend.dial import DIAL_TIMEOUT_S, BuilderFactory, Connect, Dialer
from bkscaler.frontend.health import check_health
from bkscaler.frontend.listener import ProxyFactory
from bkscaler.frontend.shortcut import Shortcuts
from bkscaler.frontend.surroundings import Surroundings
from bkscaler.kube.auth import ClusterAccess, ExecPlugin
from bkscaler.kube.client import ApiClient, OnResponse
from bkscaler.kube.cluster import ClusterView
from bkscaler.kube.events import Events
from bkscaler.kube.execplugin import PluginCredentials, runner
from bkscaler.kube.kubeconfig import find_access
from bkscaler.kube.permissions import Permissions
from bkscaler.kube.rights import needed_rights
from bkscaler.model import Replica
from bkscaler.observability import logs
from bkscaler.observability.history import History
from bkscaler.observability.metrics import Metrics, Sources
from bkscaler.observability.recorder import Recorder
from bkscaler.observability.site import AdminSite
from bkscaler.observability.status import Status
from bkscaler.outside import Outside
from bkscaler.relay.hangups import Deaf, EpollHangups
from bkscaler.relay.leg import Leg
from bkscaler.relay.pair import CopyRelay, Relay
from bkscaler.relay.pipes import PipePool
from bkscaler.relay.poller import Poller
from bkscaler.relay.splice import CAN_SPLICE, SpliceRelay, SpliceWorks
from bkscaler.relay.stalls import Stalls
from bkscaler.resources import allow_descriptors, settle_memory
from bkscaler.scaling.policy import Limits
from bkscaler.scaling.service import Scaler
from bkscaler.services import ConnectionReports, Kubernetes, Listener, Parts
from bkscaler.shutdown import Drain


class Options(config.Options):
    """
    The command line of ``twistd bkscaler``, and the cluster it leads to.

    :param environ: environment variables; None takes those of the process.
    :ivar access: how to reach the cluster.
    """

    access: ClusterAccess

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(os.environ if environ is None else environ)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse; with ``--check``, look at the cluster and exit.

        :param options: arguments after the plugin's name; None takes them from the command line.
        :raises SystemExit: with status 1 after problems have been printed, and with ``--check``.
        """
        super().parseOptions(options)
        if self.settings.check:
            react(self.check_cluster)

    async def check_cluster(self, reactor: Any) -> None:
        """
        Print what is found in the cluster.

        :param reactor: for connections.
        :raises SystemExit: with status 0 if bkscaler would work, else with 1.
        """
        client = _client(self, _real_outside(reactor))
        would_work = await check(client, self.access, self.settings, sys.stdout.write)
        await client.close()
        raise SystemExit(0 if would_work else 1)

    def further_problems(self, settings_are_good: bool) -> list[str]:
        """Find the cluster; say what keeps us from it."""
        if not settings_are_good:
            return []
        problems = []
        if self.settings.relay == "splice" and not CAN_SPLICE:
            problems.append("--relay: 'splice' is not possible on this system; use copy or auto")
        try:
            self.access = find_access(
                kubeconfig=self.settings.kubeconfig, context=self.settings.context, environ=self.environ
            )
        except ConfigurationError as error:
            problems += error.problems
        return problems


def makeService(options: Options, reactor: Any = None) -> MultiService:  # named by Twisted
    """
    Build everything. Nothing listens and nothing is asked before the service is started.

    :param options: parsed.
    :param reactor: None takes the global one.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: PLC0415  # installed only when it is needed
    allow_descriptors(options.settings.max_connections)
    reactor.callWhenRunning(settle_memory)
    return compose(options, _real_outside(reactor))


def _real_outside(reactor: Any) -> Outside:
    """Take everything from the machine."""
    return Outside(
        reactor=reactor,
        random=SystemRandom().random,
        now=lambda: datetime.now(UTC),
        host_name=socket.gethostname(),
        make_hangups=EpollHangups if CAN_SPLICE else lambda poller: Deaf(),
        set_handler=signal.signal,
        exit_now=os._exit,
    )


def compose(options: Options, outside: Outside) -> MultiService:
    """
    Build everything. Nothing listens and nothing is asked before the service is started.

    :param options: parsed; without ``parent`` nothing is done about the log.
    :param outside: what the parts have from outside.
    """
    settings, reactor = options.settings, outside.reactor
    recorder = Recorder(reactor, Metrics(reactor, settings.max_connections), History(reactor))
    kube = _kubernetes(options, outside, recorder)
    scaler = Scaler(
        clock=reactor,
        cluster=kube.view,
        limits=Limits(idle_timeout_s=settings.idle_timeout_s),
        random=outside.random,
        give_up_after_s=settings.give_up_after_s,
        report=kube.events.happened,
        on_change=recorder.changed,
        on_result=recorder.scaled,
    )
    kube.view.on_change = scaler.observed
    poller = Poller(reactor)
    factory = _proxy(settings, outside, poller, scaler, recorder)
    ports = Ports(reactor, poller) if _can_take_shortcuts(settings, reactor) else reactor
    listener = Listener(ports, "listen-addr", settings.listen_addr, factory)

    def stop_accepting() -> Deferred[None]:
        scaler.drain()
        stopped: Deferred[None] = listener.stopService()  # type: ignore[no-untyped-call]  # nor here
        return stopped

    drain = Drain(
        reactor=reactor,
        connections=factory,
        stop_accepting=stop_accepting,
        limit_s=settings.drain_timeout_s,
        exit_now=outside.exit_now,
        set_handler=outside.set_handler,
    )
    parts = [kube, scaler, listener, drain]
    if settings.admin_addr is not None:
        sources = _sources(scaler, factory, kube, drain=drain, listener=listener, outside=outside)
        status = Status(clock=reactor, sources=sources, recorder=recorder, settings=settings)
        recorder.metrics.read_from(sources)
        site = AdminSite(missing=sources.missing, status=status.take, recorder=recorder, reactor=reactor)
        parts.insert(0, Listener(reactor, "admin-addr", settings.admin_addr, site))
    return _together(parts, options, reactor)


def _kubernetes(options: Options, outside: Outside, recorder: Recorder) -> Kubernetes:
    """Build what talks to the API server."""
    reactor, random = outside.reactor, outside.random
    client = _client(options, outside, recorder.answered)
    view = ClusterView(
        client=client,
        namespace=options.settings.sts_namespace,
        name=options.settings.sts_name,
        clock=reactor,
        random=random,
        require_ready=options.settings.readiness == "pod",
        on_restart=recorder.restarted,
    )
    permissions = Permissions(
        client=client,
        clock=reactor,
        random=random,
        namespace=options.settings.sts_namespace,
        rights=needed_rights(options.settings.sts_name),
    )
    events = Events(
        client=client,
        clock=reactor,
        now=outside.now,
        namespace=options.settings.sts_namespace,
        regarding=lambda: view.stateful_set,
        instance=outside.host_name,
    )
    client.on_forbidden = permissions.doubt
    return Kubernetes(client=client, view=view, permissions=permissions, events=events)


def _client(options: Options, outside: Outside, on_response: OnResponse | None = None) -> ApiClient:
    """Build what asks the API server."""
    reactor = outside.reactor

    def credentials(plugin: ExecPlugin) -> PluginCredentials:
        run = runner(reactor, options.environ)
        return PluginCredentials(plugin, run=run, clock=reactor, now=outside.now, random=outside.random)

    return ApiClient.over_network(
        access=options.access, reactor=reactor, make_credentials=credentials, on_response=on_response
    )


def _together(parts: list[Any], options: Options, reactor: Any) -> MultiService:
    """Put the parts under one parent, in the order they are started."""
    settings = options.settings
    twistd = getattr(options, "parent", None)
    parent = Parts(logs.observer_for_twistd(settings.log_format, settings.log_level, twistd, reactor))
    for part in parts:
        part.setServiceParent(parent)
    Logger("bkscaler.plugin").info(
        "bkscaler {version} for StatefulSet {namespace}/{name} at {server} ({source})",
        event="started",
        version=__version__,
        namespace=settings.sts_namespace,
        name=settings.sts_name,
        server=options.access.server,
        source=options.access.source,
    )
    if settings.readiness != "pod" and settings.target_address == "dns":
        Logger("bkscaler.plugin").warn(
            "--readiness {readiness} with --target-address dns: the Service {service} must have "
            "publishNotReadyAddresses, or the pod has no name before it is Ready",
            readiness=settings.readiness,
            service=settings.headless_service_name,
        )
    return parent


def _sources(
    scaler: Scaler,
    factory: ProxyFactory,
    kube: Kubernetes,
    *,
    drain: Drain,
    listener: Listener,
    outside: Outside,
) -> Sources:
    """Say where the status page and the metrics find what holds now."""
    return Sources(
        snapshot=scaler.snapshot,
        connections=factory.connections,
        in_touch=lambda: kube.view.in_touch,
        trouble=lambda: str(kube.view.trouble or ""),
        missing=lambda: _missing(drain, listener, kube.view) + kube.permissions.lines(),
        draining=lambda: drain.draining,
        now_unix_s=lambda: outside.now().timestamp(),
    )


def _can_take_shortcuts(settings: Settings, reactor: Any) -> bool:
    """Say whether clients may be joined without transports: spliced, to IPs, by a reactor with sockets."""
    splices = CAN_SPLICE and settings.relay != "copy"
    return splices and settings.target_address == "pod-ip" and isinstance(reactor, PosixReactorBase)


def _proxy(
    settings: Settings, outside: Outside, poller: Poller, scaler: Scaler, recorder: Recorder
) -> ProxyFactory:
    """Build what serves clients."""
    reactor = outside.reactor
    stalls, hangups = Stalls(reactor), outside.make_hangups(poller)
    works = SpliceWorks(poller=poller, pipes=PipePool(), stalls=stalls)

    async def check(replica: Replica) -> None:
        host, port = builder_host(settings, replica), settings.target_port
        await check_health(HostnameEndpoint(reactor, host, port, DIAL_TIMEOUT_S), reactor)

    def join(client: Leg, builder: Leg, may_lend: bool) -> Relay:
        if may_lend and CAN_SPLICE and settings.relay != "copy":
            return SpliceRelay(client, builder, works)
        return CopyRelay(client, builder, hangups=hangups, stalls=stalls)

    shared = Surroundings(
        clock=reactor,
        random=outside.random,
        capacity=scaler,
        dialer=Dialer(connector(settings, reactor), check if settings.readiness == "grpc" else None),
        join=join,
        hangups=hangups,
        probe_grace_s=settings.probe_grace_s,
        hold_after_s=settings.hold_after_s,
        ready_wait_timeout_s=settings.ready_wait_timeout_s,
        reports=ConnectionReports(recorder, scaler.gave_up),
    )
    prefix = f"{outside.host_name}-{int(outside.random() * 2**32):08x}"
    ways = None
    if _can_take_shortcuts(settings, reactor):
        ways = Shortcuts.made_of(shared, works, settings.target_port)
    return ProxyFactory(shared=shared, max_connections=settings.max_connections, prefix=prefix, ways=ways)


def builder_host(settings: Settings, replica: Replica) -> str:
    """
    Say where a replica is dialled.

    :param settings: ``target_address`` chooses between the pod's IP and its name in the headless Service.
    :param replica: which pod.
    """
    if settings.target_address == "pod-ip":
        return replica.ip
    service = f"{settings.headless_service_name}.{settings.sts_namespace}.svc.{settings.cluster_domain}"
    return f"{replica.name}.{service}"


def connector(settings: Settings, reactor: Any) -> Connect:
    """
    Choose how replicas are connected to.

    :param settings: an IP needs nobody to resolve it, and no endpoint.
    :param reactor: connects.
    """
    port = settings.target_port

    def by_ip(replica: Replica, factory: BuilderFactory) -> Callable[[], object]:
        trial = reactor.connectTCP(replica.ip, port, factory, DIAL_TIMEOUT_S)
        end: Callable[[], object] = trial.disconnect
        return end

    def by_name(replica: Replica, factory: BuilderFactory) -> Callable[[], object]:
        trial = HostnameEndpoint(reactor, builder_host(settings, replica), port, DIAL_TIMEOUT_S)
        trying: Deferred[Any] = trial.connect(factory)
        trying.addErrback(factory.failed)
        return trying.cancel

    return by_ip if settings.target_address == "pod-ip" else by_name


def _missing(drain: Drain, listener: Listener, view: ClusterView) -> list[str]:
    """Say what keeps us from being ready."""
    missing = []
    if drain.draining:
        missing.append("draining: bkscaler is shutting down")
    elif not listener.running:
        missing.append("not listening yet")
    if view.observation is None:
        missing.append(f"the StatefulSet has not been seen yet: {view.trouble or 'asking the API server'}")
    return missing
