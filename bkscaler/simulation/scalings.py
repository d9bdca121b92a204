"""
What must hold when the replicas change: nobody is cut, nothing is done too early, too late, or for nobody.

Imported by :mod:`bkscaler.simulation.judge`.
"""

from __future__ import annotations

import math
from typing import Any

from bkscaler.sandbox.state import Change
from bkscaler.simulation.lines import Line

IN_FLIGHT_S, IN_FLIGHT_LATE_S = 1.0, 40.0
"""How long after a client has left a request made for it may take effect, when all is well with
the API server, and otherwise."""
ROUNDING_S = 0.002


class Scalings:
    """
    Judges each change of the replicas in the moment in which it takes effect.

    :param judge: whom failures are told, and who knows the world.
    :ivar condemned_s: since when the set has been about to be deleted; infinite when it is not.
    :ivar we_sleep: whether it was bkscaler that has scaled to 0, and nobody has scaled since.
    """

    def __init__(self, judge: Any) -> None:
        self.condemned_s = math.inf
        self.we_sleep = False
        self._judge = judge
        self._truth = judge.truth
        self._world = judge.world
        self._changed_s = self._told_s = self._heard_s = -math.inf
        self._saw_change = False
        self._told: int | None = None
        self._before: int | None = None
        self._world.api.on_asked = self._too_early
        self._world.cluster.state.subscribe("statefulsets", self._set_changed)

    def told(self, line: Line) -> None:
        """
        Take note of what the API server tells. What is undone before it is heard of, or in the same moment,
        is no change for whoever hears it.
        """
        self._settle()
        for each in line.get("items", [line.get("object", line)]):
            if "replicas" in each.get("spec", {}) and line.get("type") != "BOOKMARK":
                self._told, self._told_s = each["spec"]["replicas"], self._truth.now_s

    def _settle(self) -> None:
        """Take note when a change was heard of, now that no more can come in the same moment."""
        if self._told != self._before and self._told_s < self._truth.now_s:
            self._before, self._heard_s = self._told, self._told_s

    def _set_changed(self, change: Change) -> None:
        before = 0 if change.previous is None else change.previous["spec"].get("replicas", 1)
        after = 0 if change.type == "DELETED" else change.object["spec"].get("replicas", 1)
        hand = self._truth.hand
        if change.type != "MODIFIED":
            self._judge.missing_s = self._truth.now_s
        if change.type == "DELETED":
            self._judge.deleted_s = self._truth.now_s
        condemned = "deletionTimestamp" in change.object["metadata"] and change.type != "DELETED"
        self.condemned_s = min(self.condemned_s, self._truth.now_s) if condemned else math.inf
        if before == after:
            return
        self._world.say(f"replicas {before} -> {after} by {hand}")
        self.we_sleep = after == 0 and hand == "bkscaler"
        if hand != "bkscaler":
            self._truth.something_is_wrong()
            self._truth.hopeful_s = self._changed_s = self._truth.now_s
            self._saw_change = self._judge.is_well
        elif after not in {0, 1}:
            self._judge.fail(f"scaled to {after}")
        elif after < before:
            self._scaled_down(after)
        elif not any(map(self._judge.wants, self._truth.client_ends())):
            self._scaled_up_for_nobody()

    def _scaled_down(self, to: int) -> None:
        """
        Nobody is joined when bkscaler takes the builder away, and it was idle for as long as was asked; it
        has looked since then. One that is draining leaves the builder to its successor. (A server that was
        restored gives versions twice: a wake that was asked of the first may fit the second.)
        """
        if to and not self._world.api.is_followed:
            return
        for link in self._truth.builder_links():
            self._judge.fail(f"scaled down while {link} was open")
        asked_s, reasons = self._world.api.facts
        for why in reasons:
            self._judge.fail(f"scaled down {why}")
        if asked_s <= self._changed_s:
            self._judge.fail("scaled down, although somebody else has scaled meanwhile")
        if self._truth.now_s > self._judge.draining_since_s + self._in_flight_s:
            self._judge.fail("scaled down while draining")

    def _too_early(self) -> tuple[float, list[str]]:
        """Say what speaks against a scale-down that is asked for now, and what time it is."""
        now_s, timeout_s = self._truth.now_s, self._world.settings.idle_timeout_s - ROUNDING_S
        since_s = max(self._judge.demand_s, self._judge.run_s)
        reasons = []
        if now_s < since_s + timeout_s:
            reasons.append(f"after {now_s - since_s:.3f} s without demand")
        self._settle()
        saw_change = self._saw_change and self._judge.is_well and self._heard_s >= self._changed_s
        if saw_change and now_s < self._changed_s + timeout_s:
            reasons.append(f"{now_s - self._changed_s:.3f} s after somebody else has scaled")
        if self._world.api.read_s < since_s + timeout_s:
            reasons.append("without a look")
        return now_s, reasons

    def _scaled_up_for_nobody(self) -> None:
        """A request for a client that has left may still be on its way, but not for long."""
        wanted_s = max(self._judge.wanted_s, self._judge.demand_s, self._truth.cancelled_s())
        late_s = self._truth.now_s - wanted_s
        if late_s > self._in_flight_s:
            self._judge.fail(f"scaled up {late_s:.3f} s after the last client had left")

    @property
    def _in_flight_s(self) -> float:
        """How long after its reason a request may take effect."""
        return IN_FLIGHT_S if self._judge.is_well else IN_FLIGHT_LATE_S
