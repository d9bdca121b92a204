"""
What is wrong just now, by the account of those who made it so; it excuses what would else be a failure.

Imported by the judges of a soak and by its faults.
"""

from __future__ import annotations

import math

DYING_S = 1.0
"""How long a builder that was killed may still accept: its process ends, and bkscaler has to hear of it."""
BACKLOG_S = 1.0
"""How long before bkscaler is told to end a client may come and be lost unheard: it is not accepted yet."""


class Troubles:
    """
    The troubles of a soak.

    :ivar deaths_s: when builders have died, other than by a scale-down.
    :ivar draining_s: when bkscaler was told to end; infinite if it was not.
    :ivar over_s: when the last trouble was over.
    """

    def __init__(self) -> None:
        self.deaths_s: list[float] = []
        self.draining_s = math.inf
        self.over_s = -math.inf
        self._ongoing: set[str] = set()

    def __repr__(self) -> str:
        return f"<Troubles: {', '.join(sorted(self._ongoing)) or 'none'}>"

    def begin(self, what: str) -> None:
        """Take note that something is wrong from now on."""
        self._ongoing.add(what)

    def end(self, what: str, now_s: float) -> None:
        """Take note that it is mended; what it has delayed may still be late."""
        self._ongoing.discard(what)
        self.over_s = now_s

    def builder_dies(self, now_s: float) -> None:
        """Take note that somebody else than bkscaler ends a builder in this moment."""
        self.deaths_s.append(now_s)
        self.over_s = now_s

    @property
    def calm_since_s(self) -> float:
        """Since when nothing has been wrong; infinite while something is."""
        return math.inf if self._ongoing or math.isfinite(self.draining_s) else self.over_s

    def builder_died_under(self, begin_s: float, end_s: float) -> bool:
        """Say whether a builder has died under a connection that lasted from one time to another."""
        return any(begin_s - DYING_S <= at_s <= end_s for at_s in self.deaths_s)

    def never_accepted(self, came_s: float) -> bool:
        """Say whether a client that came at a time may not have been accepted, as bkscaler was ending."""
        return came_s >= self.draining_s - BACKLOG_S
