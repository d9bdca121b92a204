"""
Whether the end of a connection has a reason: in what its client did, or in what was done to its builder.

Both functions give words on what is wrong, or ``""``. Pure. Imported by ``soak.ledger``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bkscaler.config import Settings
from bkscaler.observability.outcomes import Outcome
from bkscaler.soak.troubles import Troubles
from bkscaler.soak.views import View

LATE_S = 2.0
"""How much later than a client has connected bkscaler may accept it: both are busy."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """
    One connection of which bkscaler says that it has ended.

    :param view: its client's.
    :param outcome: the word for it.
    :param at_s: when that was said.
    :param others: how many other clients were there then.
    """

    view: View
    outcome: Outcome
    at_s: float
    others: int

    @property
    def client_has_left(self) -> bool:
        """Whether the client had done something to end it."""
        return self.view.left_s <= self.at_s or self.view.cancelled


def unexplained_outcome(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    """
    Judge the word that bkscaler has for an end.

    :param troubles: what excuses it.
    :param settings: bkscaler's.
    """
    if ended.view.served_s < ended.at_s and ended.outcome not in AFTER_SERVICE:
        return "it was served"
    return RULES[ended.outcome](ended, troubles, settings)


def unexplained_end(view: View, troubles: Troubles) -> str:
    """
    Judge an end as the client sees it: who is served is never cut for no reason, and gets all its bytes.

    :param view: of a client whose connection is gone.
    :param troubles: what excuses it.
    """
    if view.wrong:
        return view.wrong
    if not view.honest or troubles.builder_died_under(view.dialled_s, view.lost_s):
        return ""
    if view.served_s < view.cut_s < math.inf:
        return "it was cut while it was served"
    if view.finished and view.received < view.sent:
        return f"it got {view.received} of {view.sent} bytes back"
    return ""


def _left(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    return "" if ended.client_has_left else "it has not left"


def _completed(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    """A builder that dies may close in order; one that is sent garbage may well close."""
    if not ended.view.honest or troubles.builder_died_under(ended.view.dialled_s, ended.at_s):
        return ""
    return _left(ended, troubles, settings)


def _builder_lost(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    return "" if troubles.builder_died_under(ended.view.dialled_s, ended.at_s) else "no builder has died"


def _probe(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    view = ended.view
    if view.spoke_s < view.left_s and not view.reset:
        return "it has spoken"
    if min(ended.at_s, view.left_s) > view.came_s + settings.probe_grace_s + LATE_S:
        return "it has stayed"
    return _left(ended, troubles, settings)


def _cancelled(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    return "" if ended.view.cancelled else "it has not cancelled"


def _misbehaved(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    return "it has not misbehaved" if ended.view.honest else ""


def _too_late(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    waited_s = ended.at_s - ended.view.dialled_s
    if waited_s < settings.ready_wait_timeout_s:
        return f"it has waited for {waited_s:.1f} s only"
    return "no trouble lasts for so long"


def _over_limit(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    enough = ended.others >= settings.max_connections
    return "" if enough else f"there were only {ended.others} others"


def _shut_down(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    over = ended.at_s >= troubles.draining_s + settings.drain_timeout_s
    return "" if over else "the drain timeout is not over"


def _never(ended: Ended, troubles: Troubles, settings: Settings) -> str:
    return "nothing that is done here leads to it"


RULES: dict[Outcome, Callable[[Ended, Troubles, Settings], str]] = {
    Outcome.COMPLETED: _completed,
    Outcome.CLIENT_LOST: _left,
    Outcome.BUILDER_LOST: _builder_lost,
    Outcome.PROBE: _probe,
    Outcome.LEFT_WHILE_HELD: _left,
    Outcome.CANCELLED_WHILE_HELD: _cancelled,
    Outcome.PROTOCOL_ERROR: _misbehaved,
    Outcome.NOT_READY_IN_TIME: _too_late,
    Outcome.BUILDER_REFUSED: _too_late,
    Outcome.CANNOT_WAKE: _never,
    Outcome.OVER_LIMIT: _over_limit,
    Outcome.SHUTTING_DOWN: _shut_down,
    Outcome.INTERNAL_ERROR: _never,
}
"""What justifies each outcome."""
AFTER_SERVICE = {Outcome.COMPLETED, Outcome.CLIENT_LOST, Outcome.BUILDER_LOST, Outcome.SHUTTING_DOWN}
"""What may become of a client that a builder has served."""
