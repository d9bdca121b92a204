"""What the tests of the frontend share: a proxy in memory, its cluster and its clients played by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from bkscaler.frontend.dial import BuilderFactory, Dialer
from bkscaler.frontend.listener import ProxyFactory
from bkscaler.frontend.surroundings import Surroundings
from bkscaler.model import Connection, Replica
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay.pair import CopyRelay
from bkscaler.relay.stalls import Stalls
from bkscaler.test.flow import FlowHangups, FlowTransport, Peer, connected, settle

REPLICA = Replica(ordinal=0, name="buildkitd-0", uid="uid-0", ip="127.0.0.2")


class HeldCapacity:
    """Capacity played by hand. ``holds`` are the names that need a builder now."""

    def __init__(self) -> None:
        self.holds: list[str] = []
        self.all_names: list[str] = []
        self.replica: Replica | None = None
        self.waiting_for = "pod buildkitd-0: pulling image"
        self.waiters: list[Deferred[Replica]] = []

    def hold(self, name: str) -> Any:
        """Need a builder."""
        self.holds.append(name)
        self.all_names.append(name)
        return _Hold(self, name)

    def wait(self) -> Deferred[Replica]:
        """Wait for a replica."""
        if self.replica is not None:
            return succeed(self.replica)
        waiter: Deferred[Replica] = Deferred(self.waiters.remove)
        self.waiters.append(waiter)
        return waiter

    def ready(self, replica: Replica = REPLICA) -> None:
        """Have a replica, and give it to who waits."""
        self.replica = replica
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.callback(replica)

    def impossible(self, error: Exception) -> None:
        """Fail who waits."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.errback(error)


class _Hold:
    def __init__(self, capacity: HeldCapacity, name: str) -> None:
        self.capacity = capacity
        self.name = name

    @property
    def waiting_for(self) -> str:
        return self.capacity.waiting_for

    def when_ready(self) -> Deferred[Replica]:
        return self.capacity.wait()

    def ready_now(self) -> Replica | None:
        return self.capacity.replica

    def release(self) -> None:
        if self.name in self.capacity.holds:
            self.capacity.holds.remove(self.name)


class Heard:
    """
    What was reported of connections.

    :ivar accepts: how many were accepted.
    :ivar outcomes: in order.
    :ivar ends: the reports that went with them.
    :ivar joins: for each client that was joined, how many seconds it has waited.
    """

    def __init__(self) -> None:
        self.accepts = 0
        self.outcomes: list[Outcome] = []
        self.ends: list[Connection] = []
        self.joins: list[float] = []

    def accepted(self) -> None:
        """Note it."""
        self.accepts += 1

    def joined(self, waited_s: float) -> None:
        """Note it."""
        self.joins.append(waited_s)

    def ended(self, outcome: Outcome, connection: Connection) -> None:
        """Note it."""
        self.outcomes.append(outcome)
        self.ends.append(connection)


class Controls:
    """The test's side of a proxy in memory."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.capacity = HeldCapacity()
        self.refuse = self.leave_open = False
        self.ended_dials: list[Replica] = []
        self.dials: list[Replica] = []
        self.builders: list[Peer] = []
        self.heard = Heard()
        self.outcomes = self.heard.outcomes
        hangups, stalls = FlowHangups(), Stalls(self.clock)
        limit = settings.pop("max_connections", 100)
        reports = settings.pop("reports", self.heard)
        values = {"probe_grace_s": 0.25, "hold_after_s": 10.0, "ready_wait_timeout_s": 300.0, **settings}
        shared = Surroundings(
            clock=self.clock,
            random=lambda: 0.0,
            capacity=self.capacity,
            dialer=Dialer(self._connect),
            join=lambda client, builder, _: CopyRelay(client, builder, hangups=hangups, stalls=stalls),
            hangups=hangups,
            reports=reports,
            **values,
        )
        self.factory = ProxyFactory(shared=shared, max_connections=limit, prefix="proxy")

    def _connect(self, replica: Replica, factory: BuilderFactory) -> Callable[[], None]:
        """Connect to a :class:`Peer`, or refuse, or leave a dial open, as the test says."""
        self.dials.append(replica)
        if self.refuse:
            self.clock.callLater(0, factory.failed, Failure(ConnectionRefusedError()))
        elif not self.leave_open:
            builder, leg = Peer(), factory.buildProtocol(None)
            self.builders.append(builder)
            connected(self.clock, leg, builder)
        return lambda: self.ended_dials.append(replica)

    def client(self) -> Peer | None:
        """Connect a client; None when it is turned away."""
        leg = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        if leg is None:
            return None
        peer = Peer()
        connected(self.clock, leg, peer)
        return peer

    def transport_of(self, client: Peer) -> FlowTransport:
        """Give our end of a client's connection."""
        return client.transport.peer

    def settle(self) -> None:
        """Let happen what is due now."""
        settle(self.clock)

    def after(self, seconds: float) -> None:
        """Let time pass, and everything that is due in it happen."""
        self.clock.advance(seconds)
        settle(self.clock)


def make_proxy(**settings: Any) -> tuple[ProxyFactory, Controls]:
    """Make a proxy in memory, and the test's side of it."""
    controls = Controls(**settings)
    return controls.factory, controls
