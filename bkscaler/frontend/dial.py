"""
Reaching a builder: one connection to one replica, as a leg that is paused until it is joined.

Imported by ``frontend.session`` and the plugin, which says what endpoint a replica has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from bkscaler.errors import BkscalerError
from bkscaler.model import Replica
from bkscaler.relay.leg import Leg, Parked

DIAL_TIMEOUT_S = 5.0
"""How long one try may take. A pod in the same cluster answers within milliseconds, or is not there."""


class DialFailed(BkscalerError):
    """No connection to a replica came about. Wait a little, ask which replica is ready, and dial again."""


class BuilderFactory(ClientFactory):
    """Makes the leg of one dial."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Leg:
        """Make a leg."""
        return Leg(Parked())


class Dialer:
    """
    Dials replicas.

    :param endpoint_for: gives the endpoint of a replica, which bounds its own tries by
        :data:`DIAL_TIMEOUT_S`.
    """

    def __init__(self, endpoint_for: Callable[[Replica], IStreamClientEndpoint]) -> None:
        self._endpoint_for = endpoint_for

    def dial(self, replica: Replica) -> Deferred[Leg]:
        """
        Connect to a replica.

        :returns: fires with a leg that is paused; fails with `DialFailed`. Cancelling ends the try.
        """
        dialled = cast(Deferred[Leg], self._endpoint_for(replica).connect(BuilderFactory()))
        return dialled.addErrback(self._failed, replica)

    def _failed(self, failure: Failure, replica: Replica) -> Leg:
        """Translate what a dial can end in; anything else is a bug and passes."""
        failure.trap(ConnectError, ConnectionLost, DNSLookupError, OSError)
        raise DialFailed(f"{replica.name} ({replica.ip}): {failure.getErrorMessage()}") from failure.value
