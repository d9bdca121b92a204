"""
Reaching a builder: one connection to one replica, as a leg that is paused until it is joined.

Imported by ``frontend.session`` and ``frontend.health``, and by the plugin, which says what endpoint a
replica has and whether it is asked for its health first.
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
    """Makes the leg of one dial."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Leg:
        """Make a leg."""
        return Leg(Parked())


def dialled(endpoint: IStreamClientEndpoint, factory: IProtocolFactory) -> Deferred[Any]:
    """
    Connect, and translate what that can fail with.

    :param endpoint: where; it bounds its own tries.
    :param factory: makes the protocol.
    :returns: fires with the protocol; fails with `DialFailed`. Cancelling ends the try.
    """

    def failed(failure: Failure) -> None:
        failure.trap(ConnectError, ConnectionLost, OSError)
        raise DialFailed(failure.getErrorMessage()) from failure.value

    deferred: Deferred[Any] = endpoint.connect(factory)
    return deferred.addErrback(failed)


class Dialer:
    """
    Dials replicas.

    :param endpoint_for: gives the endpoint of a replica, which bounds its own tries by
        :data:`DIAL_TIMEOUT_S`.
    :param check: returns when a replica serves, and raises `DialFailed` when it does not; asked once for each
        pod, and again after a dial that failed. None takes every replica for one that serves.
    """

    def __init__(
        self,
        endpoint_for: Callable[[Replica], IStreamClientEndpoint],
        check: Callable[[Replica], Awaitable[None]] | None = None,
    ) -> None:
        self._endpoint_for = endpoint_for
        self._check = check
        self._serving: dict[str, str] = {}

    def dial(self, replica: Replica) -> Deferred[Leg]:
        """
        Connect to a replica.

        :returns: fires with a leg that is paused; fails with `DialFailed`, which names the replica.
            Cancelling ends the try.
        """
        if self._check is None or self._serving.get(replica.name) == replica.uid:
            leg = dialled(self._endpoint_for(replica), BuilderFactory())
        else:
            leg = Deferred.fromCoroutine(self._check_and_dial(self._check, replica))
        return leg.addErrback(self._failed, replica)

    async def _check_and_dial(self, check: Callable[[Replica], Awaitable[None]], replica: Replica) -> Leg:
        await check(replica)
        self._serving[replica.name] = replica.uid
        leg: Leg = await dialled(self._endpoint_for(replica), BuilderFactory())
        return leg

    def _failed(self, failure: Failure, replica: Replica) -> Leg:
        """Name the replica, and believe nothing of it any more."""
        failure.trap(DialFailed)
        self._serving.pop(replica.name, None)
        raise DialFailed(f"pod {replica.name} ({replica.ip}): {failure.getErrorMessage()}") from failure.value
