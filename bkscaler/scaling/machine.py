"""
The states a builder can be in, the events that move it, and the table of legal moves. No I/O, no timers.

The state is a classification of three facts (what is observed, whether anybody needs it, whether a
request to put it to sleep is on its way); each event says that one of these facts changed. The table
says which moves a change of that fact may cause; any other is a bug and raises `IllegalMove`.

=================  ===========================================================================
state              meaning
=================  ===========================================================================
``UNKNOWN``        the set has not been seen yet
``MISSING``        there is no such StatefulSet
``ASLEEP``         at its minimum, nobody needs more
``WAKING``         needed, no replica is ready
``AWAKE``          needed, and a replica is ready
``IDLE``           up, nobody needs it; the idle timer runs, counted from ``idle_since_s``
``GOING_TO_SLEEP`` a request to scale down is on its way, or its fate is not known; nobody is given
                   a replica, whatever the pods look like
=================  ===========================================================================

Events are sent by :mod:`bkscaler.scaling.service` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bkscaler.errors import IllegalMove
from bkscaler.model import Observation
from bkscaler.scaling.demand import Needs


class State(Enum):
    """Where the builder stands; the value is the word used in logs and documentation."""

    UNKNOWN = "unknown"
    MISSING = "missing"
    ASLEEP = "asleep"
    WAKING = "waking"
    AWAKE = "awake"
    IDLE = "idle"
    GOING_TO_SLEEP = "going to sleep"


class Event(Enum):
    """Which fact changed."""

    ARRIVED = "demand appeared"
    DEPARTED = "demand ended"
    OBSERVED = "the cluster was observed"
    SLEEP_SENT = "a scale-down was sent"
    ANSWERED = "the scale-down is decided"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """
    Everything the state depends on.

    :param observation: what is known of the set; None before it has been seen.
    :param needs: the demand.
    :param minimum: replicas without demand.
    :param sleep_sent: whether a scale-down is on its way or its fate is unknown.
    """

    observation: Observation | None
    needs: Needs
    minimum: int = 0
    sleep_sent: bool = False


def classify(facts: Facts) -> State:
    """Name the state that the facts amount to."""
    seen = facts.observation
    if facts.sleep_sent:
        return State.GOING_TO_SLEEP
    if seen is None:
        return State.UNKNOWN
    if not seen.exists:
        return State.MISSING
    if facts.needs.holds:
        return State.AWAKE if seen.ready else State.WAKING
    return State.IDLE if seen.replicas > facts.minimum else State.ASLEEP


_UNNEEDED = frozenset({State.ASLEEP, State.IDLE})
_NEEDED = frozenset({State.WAKING, State.AWAKE})
_NOWHERE: frozenset[State] = frozenset()
_BLIND = (State.UNKNOWN, State.MISSING, State.GOING_TO_SLEEP)

MOVES: dict[tuple[State, Event], frozenset[State]] = {
    **{(state, event): _NOWHERE for state in State for event in Event},
    **{(state, Event.ARRIVED): frozenset({state}) for state in _BLIND},
    **{(state, Event.DEPARTED): frozenset({state}) for state in _BLIND},
    **{(state, Event.ARRIVED): _NEEDED for state in _UNNEEDED},
    **{(state, Event.DEPARTED): _UNNEEDED for state in _NEEDED},
    (State.UNKNOWN, Event.OBSERVED): _UNNEEDED | _NEEDED | {State.MISSING},
    (State.MISSING, Event.OBSERVED): _UNNEEDED | _NEEDED | {State.MISSING},
    **{(state, Event.OBSERVED): _UNNEEDED | {State.MISSING} for state in _UNNEEDED},
    **{(state, Event.OBSERVED): _NEEDED | {State.MISSING} for state in _NEEDED},
    (State.GOING_TO_SLEEP, Event.OBSERVED): frozenset({State.GOING_TO_SLEEP}),
    (State.IDLE, Event.SLEEP_SENT): frozenset({State.GOING_TO_SLEEP}),
    (State.GOING_TO_SLEEP, Event.ANSWERED): _UNNEEDED | _NEEDED | {State.MISSING},
}
"""For every state and event the states it may lead to; none when the event cannot happen there."""


class Machine:
    """
    The current state, since when, and since when it has been idle. Lives as long as its scaler.

    :ivar state: the :class:`State`.
    :ivar since_s: time on the clock when that state was entered.
    :ivar idle_since_s: time since which nobody has needed a set that is up; None in other states. It
        survives a scale-down that failed, and starts anew when somebody else changes the replicas.
    """

    def __init__(self, now_s: float) -> None:
        self.state = State.UNKNOWN
        self.since_s = now_s
        self.idle_since_s: float | None = None
        self._idle_replicas = 0

    def send(self, event: Event, facts: Facts, now_s: float) -> bool:
        """
        Take in that one fact changed.

        :param event: which fact.
        :param facts: all facts, as they are now.
        :param now_s: time on the clock.
        :returns: whether the state changed.
        :raises IllegalMove: when the table does not allow the move; the state is then unchanged.
        """
        to = classify(facts)
        if to not in MOVES[self.state, event]:
            raise IllegalMove(f"{self.state.value}: {event.value}: to {to.value}")
        return self.resume(facts, now_s)

    def resume(self, facts: Facts, now_s: float) -> bool:
        """
        Go to the state that the facts amount to, whatever the table says: after `IllegalMove`, the facts
        are still what holds.

        :returns: whether the state changed.
        """
        to = classify(facts)
        self._keep_idle_time(to, facts, now_s)
        if to is self.state:
            return False
        self.state, self.since_s = to, now_s
        return True

    def _keep_idle_time(self, to: State, facts: Facts, now_s: float) -> None:
        """Start, restart or forget the time since which the set has been idle."""
        if to is State.GOING_TO_SLEEP and not facts.needs.holds:
            return
        if to is not State.IDLE or facts.observation is None:
            self.idle_since_s = None
            return
        if self.idle_since_s is None or facts.observation.replicas != self._idle_replicas:
            self.idle_since_s = now_s
        self._idle_replicas = facts.observation.replicas
