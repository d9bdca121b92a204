"""
The decision: from what is observed and what is needed to what should be done. Pure, written for 0..N.

:func:`decide` is called on every arrival, departure, observation, timer and failure; it keeps no memory
of its own, so a missed event is made good by the next one. Rules, in order:

1. Nothing is done to a set that has not been seen or does not exist.
2. Demand that the set is too small for is met at once. A set that is larger than needed is left alone as
   long as anybody needs any of it: somebody else may have scaled it, and shrinking could end a build.
3. Without demand the set is left alone for the idle timeout, then goes to the minimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bkscaler.durations import format_duration
from bkscaler.model import Observation
from bkscaler.scaling.demand import Needs

WHOLE_SECONDS_S = 10.0
"""From here on a time is told in whole seconds, so that the same is told in the same words."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """
    What the decision may do.

    :param idle_timeout_s: seconds without demand before the set goes to the minimum, > 0; infinite: never.
    :param minimum: replicas without demand, >= 0.
    :param maximum: replicas at most, >= 1 and >= ``minimum``.
    :param holds_per_replica: how many holds one replica is for, >= 1; None: any number.
    """

    idle_timeout_s: float
    minimum: int = 0
    maximum: int = 1
    holds_per_replica: int | None = None

    def wanted(self, needs: Needs) -> int:
        """Say how many replicas the demand calls for, between minimum and maximum."""
        if not needs.holds:
            return self.minimum
        count = 1 if self.holds_per_replica is None else math.ceil(needs.holds / self.holds_per_replica)
        return max(self.minimum, min(self.maximum, count))


@dataclass(frozen=True, kw_only=True)
class ScaleTo:
    """
    Ask for this many replicas, provided that the set is still at this version.

    :param replicas: the new ``spec.replicas``.
    :param resource_version: the version that the decision was made on.
    :param reason: why, for the log and the Event.
    :param down: whether this takes replicas away.
    """

    replicas: int
    resource_version: str
    reason: str
    down: bool = False


@dataclass(frozen=True, kw_only=True)
class WaitUntil:
    """Do nothing now, and decide again at this time on the clock (seconds; infinite: not by time)."""

    at_s: float


@dataclass(frozen=True, kw_only=True)
class Leave:
    """Do nothing until something changes."""


Decision = ScaleTo | WaitUntil | Leave


def decide(
    observation: Observation | None, needs: Needs, limits: Limits, now_s: float, idle_since_s: float | None
) -> Decision:
    """
    Decide what to do next.

    :param observation: what is known of the set; None before it has been seen.
    :param needs: the demand.
    :param limits: what may be done.
    :param now_s: time on the clock.
    :param idle_since_s: since when nobody has needed the set; None when that is not so.
    :returns: exactly one thing to do.
    """
    if observation is None or not observation.exists:
        return Leave()
    wanted = limits.wanted(needs)
    if observation.replicas < wanted:
        clients = "1 client waits" if needs.holds == 1 else f"{needs.holds} clients wait"
        return ScaleTo(replicas=wanted, resource_version=observation.resource_version, reason=clients)
    if needs.holds or observation.replicas <= limits.minimum or idle_since_s is None:
        return Leave()
    due_s = idle_since_s + limits.idle_timeout_s
    if now_s < due_s:
        return WaitUntil(at_s=due_s)
    idle_s = now_s - idle_since_s
    reason = f"idle for {format_duration(round(idle_s) if idle_s >= WHOLE_SECONDS_S else round(idle_s, 1))}"
    return ScaleTo(
        replicas=limits.minimum, resource_version=observation.resource_version, reason=reason, down=True
    )
