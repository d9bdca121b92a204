"""One run of bkscaler: what the plugin builds on a reactor of ours, until it ends or is killed."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from datetime import datetime
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.abstract import isIPAddress
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
)
from zope.interface import implementer

from bkscaler.config import Settings
from bkscaler.kube.auth import ClusterAccess
from bkscaler.outside import Outside
from bkscaler.plugin import Options, compose
from bkscaler.simulation.network import Connector, Host, Listening, Network
from bkscaler.test.flow import FlowHangups

OPTIONS = Options({})
"""A command line that says nothing, which takes long to read."""


@implementer(IReactorTime, IReactorTCP, IReactorPluggableNameResolver)
class SimulatedReactor:
    """
    The reactor of one process, on a clock and a network that it shares with others.

    :param host: where the process runs.
    :ivar handlers: what is to be done about each signal.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.stopped: Deferred[None] = Deferred()
        self.nameResolver = _Resolver(host.network)
        self._clock = host.network.clock

    def seconds(self) -> float:
        """Give the time."""
        return self._clock.rightNow

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """Schedule a call; a process that is dead does nothing any more."""
        call = self._clock.callLater(delay, callable, *args, **kw)
        call.owner = self.host
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """List what this process has scheduled."""
        calls: list[Any] = self._clock.getDelayedCalls()
        return [call for call in calls if call.owner is self.host]

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> Connector:
        """Connect."""
        return self.host.network.connect(self.host, host, port, factory, timeout)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Listening:
        """Listen."""
        return self.host.listen(port, factory)

    def installNameResolver(self, resolver: Any) -> Any:
        """Refuse: there is nobody who would."""
        raise NotImplementedError

    def callWhenRunning(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        """Call as soon as possible: the reactor runs."""
        self.callLater(0, callable, *args, **kw)

    def callFromThread(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        """Call from the reactor; there are no threads."""
        self.callLater(0, callable, *args, **kw)

    def stop(self) -> None:
        """End the process."""
        self.stopped.callback(None)


@implementer(IHostnameResolver)
class _Resolver:
    """Resolves addresses to themselves, and names as the network does."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: object = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Answer at once."""
        resolutionReceiver.resolutionBegan(self)
        address = hostName if isIPAddress(hostName) else self._network.resolve(hostName)
        if address:
            resolutionReceiver.addressResolved(IPv4Address("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return self


class Process(Host):
    """
    One process of bkscaler, from :meth:`start` until :attr:`over` has fired.

    :param settings: its settings.
    :param access: how it reaches the cluster.
    :param random: its chance.
    :param now: its wall clock.
    :ivar over: fires with how it ended: ``exited``, ``killed``.
    :ivar leftovers: what it had not cleared away when it exited.
    """

    told = False

    def __init__(
        self,
        network: Network,
        ip: str,
        *,
        name: str,
        settings: Settings,
        access: ClusterAccess,
        random: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        super().__init__(network, name, ip)
        self.reactor = SimulatedReactor(self)
        self.handlers: dict[int, Callable[[int, object], None]] = {}
        self.over: Deferred[str] = Deferred()
        self.draining = False
        self.leftovers: list[str] = []
        options = copy(OPTIONS)
        options.settings, options.access = settings, access
        outside = Outside(
            reactor=self.reactor,
            random=random,
            now=now,
            host_name=name,
            make_hangups=lambda poller: FlowHangups(),
            set_handler=self.handlers.__setitem__,
            exit_now=lambda status: self.kill(),
        )
        self.service: MultiService = compose(options, outside)

    def start(self) -> None:
        """Do what twistd does."""
        self.service.privilegedStartService()
        self.service.startService()
        self.reactor.stopped.addCallback(lambda _: self._stop())

    def signal(self, number: int) -> None:
        """Get a signal; one that comes before there is a handler kills."""
        handler = self.handlers.get(number)
        if handler is None:
            self.kill()
        else:
            self.draining = True
            handler(number, None)

    def kill(self) -> None:
        """End at once, without a chance to do anything about it."""
        if self.alive:
            self.die()
            self.over.callback("killed")

    def _stop(self) -> Any:
        """Do what twistd does when the reactor stops: stop every service, then look what is left."""
        stopped: Any = self.service.stopService()
        return stopped.addBoth(lambda _: self.network.clock.callLater(0, self._exit))

    def _exit(self) -> None:
        if not self.alive:
            return
        self.leftovers = [f"delayed call {call.func}" for call in self.reactor.getDelayedCalls()]  # type: ignore[attr-defined]
        self.leftovers += [f"connection {end.link}" for end in self.ends if end.connected]
        self.leftovers += [f"port {port}" for port in self.ports]
        self.die()
        self.over.callback("exited")
