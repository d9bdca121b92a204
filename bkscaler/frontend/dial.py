"""
Reaching a builder: one connection to one replica, as a leg that is paused until it is joined.

Imported by ``frontend.session`` and ``frontend.health``, and by the plugin, which says how a replica is
connected to and whether it is asked for its health first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from bkscaler.errors import BkscalerError
from bkscaler.model import Replica
from bkscaler.relay.leg import Leg, Parked

DIAL_TIMEOUT_S = 5.0
"""How long one try may take. A pod in the same cluster answers within milliseconds, or is not there."""


class DialFailed(BkscalerError):
    """No usable connection to a replica came about. Wait a little, ask which is ready, and dial again."""


class BuilderFactory(ClientFactory):
    """
    Makes the leg of one dial, and tells what comes of it.

    The protocol itself tells that it is connected: an endpoint would put a wrapper between it and its
    transport, for each connection and each read.

    :ivar arrived: fires with the leg, connected and paused; fails with `DialFailed`. Cancelling calls what
        :meth:`Dialer` was given to end the try.
    """

    noisy = False

    def __init__(self) -> None:
        self.arrived: Deferred[Leg] = Deferred(self._cancelled)
        self.arrived.addErrback(_translated)
        self.give_up: Callable[[], object] = lambda: None
        self._over = False

    def buildProtocol(self, addr: IAddress | None) -> Leg:
        """Make the leg."""
        return Leg(_Arriving(self))

    def succeeded(self, leg: Leg) -> None:
        """Hear that the leg is connected."""
        if self._over:
            leg.transport.abortConnection()
        else:
            self._over = True
            self.arrived.callback(leg)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """Hear from a connector that no connection came about."""
        self.failed(reason)

    def failed(self, failure: Failure) -> None:
        """Hear that no connection came about."""
        if not self._over:
            self._over = True
            self.arrived.errback(failure)

    def _cancelled(self, _: object) -> None:
        self._over = True
        self.give_up()


class _Arriving(Parked):
    """The owner of a builder's leg until it is connected, and after that until somebody wants it."""

    def __init__(self, factory: BuilderFactory) -> None:
        self._factory = factory

    def connected(self, leg: Leg) -> None:
        """Pause, and tell."""
        super().connected(leg)
        self._factory.succeeded(leg)


Connect = Callable[[Replica, BuilderFactory], Callable[[], object]]
"""
Begins to connect to a replica, with a factory that is told of a failure by its ``failed`` or
``clientConnectionFailed``. Gives what ends the try.
"""


def dialled(endpoint: IStreamClientEndpoint, factory: IProtocolFactory) -> Deferred[Any]:
    """
    Connect by an endpoint, and translate what that can fail with.

    :param endpoint: where; it bounds its own tries.
    :param factory: makes the protocol.
    :returns: fires with the protocol; fails with `DialFailed`. Cancelling ends the try.
    """
    deferred: Deferred[Any] = endpoint.connect(factory)
    return deferred.addErrback(_translated)


def _translated(failure: Failure) -> Any:
    """Translate what connecting can fail with; anything else is a bug and passes."""
    failure.trap(ConnectError, ConnectionLost, OSError)
    raise DialFailed(failure.getErrorMessage()) from failure.value


class Dialer:
    """
    Dials replicas.

    :param connect: see :data:`Connect`; a try must end within about :data:`DIAL_TIMEOUT_S`.
    :param check: returns when a replica serves, and raises `DialFailed` when it does not; asked once for each
        pod at each address (a reboot of its node gives a pod a new one), and again after a dial that failed.
        None takes every replica for one that serves.
    """

    def __init__(self, connect: Connect, check: Callable[[Replica], Awaitable[None]] | None = None) -> None:
        self._connect = connect
        self._check = check
        self._serving: dict[str, Replica] = {}

    def is_known_to_serve(self, replica: Replica) -> bool:
        """Say whether it may be connected to without asking it for its health first."""
        return self._check is None or self._serving.get(replica.name) == replica

    def doubt(self, replica: Replica) -> None:
        """Believe nothing of a replica any more: a dial of it has failed."""
        self._serving.pop(replica.name, None)

    def dial(self, replica: Replica, is_ready: Callable[[], bool] = lambda: True) -> Deferred[Leg]:
        """
        Connect to a replica.

        :param is_ready: whether it still may be dialled; asked when it has been asked for its health, which
            takes a while.
        :returns: fires with a leg that is paused; fails with `DialFailed`, which names the replica.
            Cancelling ends the try.
        """
        if self._check is None or self.is_known_to_serve(replica):
            leg = self._begin(replica)
        else:
            leg = Deferred.fromCoroutine(self._check_and_dial(self._check, replica, is_ready))
        return leg.addErrback(self._failed, replica)

    def _begin(self, replica: Replica) -> Deferred[Leg]:
        factory = BuilderFactory()
        factory.give_up = self._connect(replica, factory)
        return factory.arrived

    async def _check_and_dial(
        self, check: Callable[[Replica], Awaitable[None]], replica: Replica, is_ready: Callable[[], bool]
    ) -> Leg:
        await check(replica)
        if not is_ready():
            raise DialFailed("it is not ready any more")
        self._serving[replica.name] = replica
        return await self._begin(replica)

    def _failed(self, failure: Failure, replica: Replica) -> Leg:
        """Name the replica, and believe nothing of it any more."""
        failure.trap(DialFailed)
        self.doubt(replica)
        raise DialFailed(f"pod {replica.name} ({replica.ip}): {failure.getErrorMessage()}") from failure.value
