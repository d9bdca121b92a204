"""
Telling a right that is missing from an API server that has just started.

Such a server has not read the roles yet, and for a moment refuses everybody. Imported by
:mod:`bkscaler.scaling.requests` and :mod:`bkscaler.scaling.service`.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from bkscaler.errors import Forbidden

GRACE_S = 5.0
"""How long a right must be missing to be believed missing."""
MEMORY_S = 30.0
"""A refusal is no longer remembered after this time: much more than the longest delay between two tries."""


class Refusals:
    """
    What has become of the requests that need one right. Lives as long as its owner.

    :param clock: says how long it has been missing.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._refused: tuple[float, float] | None = None

    def believed(self, error: Exception | None) -> str:
        """
        Take in how a request has ended.

        :param error: what it failed with; None: it has succeeded.
        :returns: the words of the server, when it has refused and has given no other answer for
            :data:`GRACE_S`; else ``""``.
        """
        if not isinstance(error, Forbidden):
            self._refused = None
            return ""
        now_s = self._clock.seconds()
        since_s, last_s = self._refused or (now_s, now_s)
        if now_s > last_s + MEMORY_S:
            since_s = now_s
        self._refused = (since_s, now_s)
        return error.message if now_s >= since_s + GRACE_S else ""
