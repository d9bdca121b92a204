"""
What must hold in a soak, all the time. Looks from outside: at bkscaler's log, at the cluster, at the clients.

Times are seconds since 1970; the log, the cluster and the clients are on one machine, so that they can be
compared. Does no I/O: it is told, by ``soak.course``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bkscaler.config import Settings
from bkscaler.observability.outcomes import Outcome
from bkscaler.soak.journal import read_line
from bkscaler.soak.ledger import Ledger
from bkscaler.soak.troubles import Troubles
from bkscaler.soak.views import View

SERVED_LATE_S = 8.0
"""How long a client may wait for bytes when nothing is wrong: a builder's start, and a busy machine."""
ASLEEP_LATE_S = 5.0
"""How much later than the idle timeout the builder may fall asleep when nothing is wrong."""
TROUBLED_S = 5.0
"""How long after the end of a trouble what begins may still be late because of it."""
AFTER_TROUBLE_S = 15.0
"""How late it may be then, counted from the end of the trouble: back-offs have to run out."""
IN_FLIGHT_S, IN_FLIGHT_LATE_S = 2.0, 30.0
"""How long after a client has left a request made for it may take effect, when all is well and otherwise."""
ACCEPT_S = 2.0
"""How long it may take until bkscaler knows of a client that has spoken."""
ROUNDING_S = 0.005
NO_DEMAND = {Outcome.PROBE, Outcome.OVER_LIMIT, Outcome.CANCELLED_WHILE_HELD, Outcome.PROTOCOL_ERROR}
"""Ends that came without any demand, or after it had ended, or possibly so."""
MAX_FAILURES = 20
"""Who fails so often need not go on, and no more is told."""


class Judge:
    """
    Judges a soak.

    :param settings: bkscaler's.
    :param say: told each failure at once.
    :ivar troubles: what is wrong, and was.
    :ivar ledger: who has come, and what has become of them.
    :ivar failures: what did not hold, the first ones.
    :ivar failed: how often something did not hold.
    :ivar replicas: what the StatefulSet is asked to be.
    :ivar wakes: how often bkscaler has asked for a builder.
    :ivar sleeps: how often it has sent it away.
    :ivar warnings: how many lines of the log were warnings.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.failures: list[str] = []
        self.troubles = Troubles()
        self.ledger = Ledger(settings, self.troubles, self.fail)
        self.failed = self.replicas = self.wakes = self.sleeps = self.warnings = 0
        self._say = say
        self._idle_timeout_s = settings.idle_timeout_s
        self._asked = {"up": 0, "down": 0}
        self._demand_s = self._used_s = self._started_s = -math.inf
        self._complained: set[object] = set()

    def __repr__(self) -> str:
        return f"<Judge: {self.failed} failures>"

    @property
    def hopeless(self) -> bool:
        """Whether it is of no use to go on."""
        return self.failed >= MAX_FAILURES

    def fail(self, words: str) -> None:
        """Take note that something did not hold."""
        self.failed += 1
        if self.failed <= MAX_FAILURES:
            self.failures.append(words)
            self._say(f"FAILED: {words}")

    def started(self, now_s: float) -> None:
        """A process has been started; what was before it does not know."""
        self._started_s, self.troubles.draining_s = now_s, math.inf
        self.troubles.over_s = now_s

    def heard(self, text: str) -> None:
        """Judge a line of bkscaler's log."""
        try:
            line = read_line(text)
        except ValueError:
            self.fail(f"a line of the log is no JSON: {text}")
            return
        self.warnings += line.level == "warn"
        if line.is_bad:
            self.fail(f"in the log: {text}")
        if line.event == "connection_ended":
            if Outcome(line.fields["outcome"]) not in NO_DEMAND:
                self._demand_s = line.at_s
            self.ledger.ended(line)
        elif line.event == "scaling":
            self._asked[line.fields["direction"]] += 1
            if line.fields["direction"] == "down":
                self._scales_down(line.at_s)

    def scaled(self, before: int, after: int, now_s: float) -> None:
        """Judge a change of the StatefulSet, in the moment in which it takes effect."""
        self.replicas = after
        if after > before:
            self.wakes += 1
            self._woken(now_s)
        elif after == 0:
            self.sleeps += 1
            self._fail_for(self._joined_at(now_s), "was joined when the builder was sent away")

    def client_over(self, view: View) -> None:
        """Judge the end of a connection as its client sees it."""
        if view.served_s < math.inf > view.left_s:
            self._used_s = max(self._used_s, view.left_s)
        self.ledger.over(view)

    def look(self, now_s: float) -> None:
        """Judge what lasts too long. To be called all the time."""
        calm_s = self.troubles.calm_since_s
        if calm_s == math.inf:
            return
        for view in self.ledger.present:
            since_s = max(view.waits_s, calm_s)
            if now_s > since_s + self._late_s(since_s, SERVED_LATE_S) and view.honest:
                self._complain(view, f"{view} has waited for bytes for {now_s - since_s:.0f} s")
        if self.ledger.open or not self.replicas:
            self._complained.discard("awake")
            return
        since_s = max(self._used_s, self._demand_s, self._started_s, calm_s)
        if now_s > since_s + self._idle_timeout_s + self._late_s(since_s, ASLEEP_LATE_S):
            self._complain(
                "awake", f"the builder is awake {now_s - since_s:.1f} s after the last client has gone"
            )

    def at_rest(self) -> None:
        """Every client has gone and the builder is asleep: what took effect is what was asked for."""
        for direction, done in (("up", self.wakes), ("down", self.sleeps)):
            if self._asked[direction] < done:
                self.fail(f"scaled {direction} {done} times, and the log tells of {self._asked[direction]}")

    def _scales_down(self, at_s: float) -> None:
        """Nobody needs the builder when bkscaler sends it away, and has not for the idle timeout."""
        self._fail_for(self._joined_at(at_s), "is joined when bkscaler decides to send the builder away")
        self._fail_for(self._waiting_at(at_s), "waits when bkscaler decides to send the builder away")
        idle_s = at_s - max(self._demand_s, self._used_s, self._started_s)
        if idle_s < self._idle_timeout_s - ROUNDING_S:
            self.fail(f"the builder is sent away after {idle_s:.3f} s without clients")

    def _joined_at(self, at_s: float) -> list[View]:
        return [view for view in self.ledger.open.values() if view.served_s < at_s < view.needed_until_s]

    def _waiting_at(self, at_s: float) -> list[View]:
        return [
            view
            for view in self.ledger.present
            if view.spoke_s < at_s - ACCEPT_S and view.served_s > at_s and view.gone_s > at_s
            if view.honest and not view.cancelled
        ]

    def _fail_for(self, views: list[View], words: str) -> None:
        """Fail once for clients that have the same in common."""
        if views:
            others = f" (and {len(views) - 1} more)" if len(views) > 1 else ""
            self.fail(f"{views[0]}{others} {words}")

    def _woken(self, now_s: float) -> None:
        """A request for a client that has left may still be on its way, but not for long."""
        calm = now_s > self.troubles.calm_since_s + TROUBLED_S
        late_s = now_s - max(self._used_s, self._demand_s)
        if not self.ledger.present and late_s > (IN_FLIGHT_S if calm else IN_FLIGHT_LATE_S):
            self.fail(f"the builder was woken {late_s:.1f} s after the last client had gone")

    def _late_s(self, since_s: float, calmly_s: float) -> float:
        """Say how long what has begun at some time may last."""
        return AFTER_TROUBLE_S if since_s < self.troubles.calm_since_s + TROUBLED_S else calmly_s

    def _complain(self, about: object, words: str) -> None:
        """Fail once about each thing."""
        if about not in self._complained:
            self._complained.add(about)
            self.fail(words)
