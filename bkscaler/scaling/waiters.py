"""
Who waits for a replica, since when, and how each of them is answered. Imported by ``scaling.service``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bkscaler.errors import WakeImpossible
from bkscaler.model import Replica


class Waiters:
    """
    The waits that have not been answered. Lives as long as its scaler.

    :param clock: tells since when each one waits.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since_s: dict[Deferred[Replica], float] = {}

    def __len__(self) -> int:
        return len(self._since_s)

    @property
    def longest_since_s(self) -> float:
        """Time on the clock since which somebody has been waiting; infinite when nobody waits."""
        return next(iter(self._since_s.values()), math.inf)

    def add(self) -> Deferred[Replica]:
        """
        Begin to wait.

        :returns: fires with a replica, fails with `WakeImpossible`; cancelling ends this wait alone.
        """
        waiter: Deferred[Replica] = Deferred(self._since_s.__delitem__)
        self._since_s[waiter] = self._clock.seconds()
        return waiter

    def serve(self, choose: Callable[[], Replica | None]) -> None:
        """
        Answer one after the other, in the order of their coming.

        :param choose: gives a replica, asked anew for each; None ends serving.
        """
        while self._since_s and (replica := choose()) is not None:
            waiter = next(iter(self._since_s))
            del self._since_s[waiter]
            waiter.callback(replica)

    def fail(self, reason: str, *, since_s: float = math.inf) -> int:
        """
        Tell waiters that the builder cannot come.

        :param reason: one line.
        :param since_s: only those who have waited since then or longer.
        :returns: how many were told.
        """
        told = 0
        for waiter, began_s in list(self._since_s.items()):
            if began_s <= since_s and self._since_s.pop(waiter, None) is not None:
                told += 1
                waiter.errback(WakeImpossible(reason))
        return told
