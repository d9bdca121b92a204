"""What the scaler reports of itself at one moment. Imported by ``scaling.service`` and by who shows it."""

from __future__ import annotations

from dataclasses import dataclass

from bkscaler.model import Observation
from bkscaler.scaling.machine import State


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """
    What the scaler reports.

    :param state: where the builder stands.
    :param since_s: time on the clock when that began.
    :param holds: clients that need a builder.
    :param waiting: waits that have not been answered.
    :param sleeps_at_s: time on the clock when the builder will be put to sleep; None when it is not idle,
        or will be left as it is.
    :param observation: what is known of the cluster; None before it has been seen.
    :param wanted: replicas that the demand calls for.
    :param waiting_for: why there is no replica that is ready, one line; ``""`` when nothing is known to say.
    """

    state: State
    since_s: float
    holds: int
    waiting: int
    sleeps_at_s: float | None
    observation: Observation | None
    wanted: int = 0
    waiting_for: str = ""
