"""
What happened lately, in memory and bounded: modes of the builder, wakes, and a list of happenings.

Times are those of the clock; whoever shows them turns them into dates. Told by
``observability.recorder``, read by ``observability.status``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum

from twisted.internet.interfaces import IReactorTime

from bkscaler.observability.wakes import Phase, Wake
from bkscaler.scaling.machine import State

WINDOW_S = 24 * 3600.0
"""How far back history goes."""
MAX_SPANS, MAX_WAKES, MAX_HAPPENINGS = 2000, 500, 50


class Mode(Enum):
    """What the builder costs and gives, coarser than its state; the value is the word in ``/status``."""

    UNKNOWN = "unknown"
    """It has not been seen yet, or there is no such StatefulSet."""
    ASLEEP = "asleep"
    """No replica: it costs nothing."""
    WAKING = "waking"
    """Somebody waits for it."""
    AWAKE = "awake"
    """In use."""
    IDLE = "idle"
    """Up, and nobody uses it."""


MODES = {
    State.UNKNOWN: Mode.UNKNOWN,
    State.MISSING: Mode.UNKNOWN,
    State.ASLEEP: Mode.ASLEEP,
    State.WAKING: Mode.WAKING,
    State.AWAKE: Mode.AWAKE,
    State.IDLE: Mode.IDLE,
    State.GOING_TO_SLEEP: Mode.IDLE,
}


class Kind(Enum):
    """What a happening is about; the value is the word in ``/status``."""

    STATE = "state"
    WAITING = "waiting"
    SCALE = "scale"
    WAKE = "wake"
    FAILURE = "failure"
    API = "api"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """
    Something that happened, in words, for the list on the status page.

    :param at_s: time on the clock, of the last one when there were several.
    :param kind: what it is about.
    :param words: one line.
    :param bad: whether somebody should look into it.
    :param count: how often the same has happened in a row.
    """

    at_s: float
    kind: Kind
    words: str
    bad: bool = False
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Span:
    """
    A time in one mode.

    :param mode: which.
    :param from_s: time on the clock when it began.
    :param to_s: when it ended; now, for the last one.
    """

    mode: Mode
    from_s: float
    to_s: float


class History:
    """
    The last 24 hours. Lives as long as the process; holds at most some hundred kilobytes.

    :param clock: tells the time.
    :ivar wakes: those that have ended, oldest first.
    :ivar happenings: oldest first.
    :ivar failures: times on the clock when a client was not served, oldest first.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._spans: list[tuple[Mode, float]] = [(Mode.UNKNOWN, clock.seconds())]
        self.wakes: deque[Wake] = deque(maxlen=MAX_WAKES)
        self.happenings: deque[Entry] = deque(maxlen=MAX_HAPPENINGS)
        self.failures: deque[float] = deque(maxlen=MAX_WAKES)

    def enter(self, state: State) -> None:
        """Note the state that the builder is in now."""
        mode = MODES[state]
        if mode is not self._spans[-1][0]:
            self._spans.append((mode, self._clock.seconds()))
            self._forget_old()

    def happened(self, kind: Kind, words: str, *, bad: bool = False) -> None:
        """Note a happening; one that is the same as the last is counted there."""
        new = Entry(at_s=self._clock.seconds(), kind=kind, words=words, bad=bad)
        last = self.happenings[-1] if self.happenings else None
        if last is not None and (last.kind, last.words) == (kind, words):
            self.happenings[-1] = replace(new, count=last.count + 1)
        else:
            self.happenings.append(new)

    def woke(self, wake: Wake) -> None:
        """Note a wake that has ended."""
        self.wakes.append(wake)

    def first_byte(self, seconds: float) -> None:
        """Complete the last wake."""
        last = self.wakes[-1]
        self.wakes[-1] = replace(last, phases={**last.phases, Phase.FIRST_BYTE: seconds})

    def failed(self) -> None:
        """Note that a client was not served."""
        self.failures.append(self._clock.seconds())

    def spans(self) -> list[Span]:
        """Give the modes of the last 24 hours, without gaps, the last one ending now; oldest first."""
        now_s = self._clock.seconds()
        ends_s = [began_s for _, began_s in self._spans[1:]] + [now_s]
        found = []
        for (mode, began_s), ended_s in zip(self._spans, ends_s, strict=True):
            if ended_s > now_s - WINDOW_S:
                found.append(Span(mode=mode, from_s=max(began_s, now_s - WINDOW_S), to_s=ended_s))
        return found

    def recent_wakes(self) -> list[Wake]:
        """Give the wakes that began in the last 24 hours."""
        return [wake for wake in self.wakes if wake.began_s > self._clock.seconds() - WINDOW_S]

    def recent_failures(self) -> list[float]:
        """Give the times of the last 24 hours at which a client was not served."""
        return [at_s for at_s in self.failures if at_s > self._clock.seconds() - WINDOW_S]

    def _forget_old(self) -> None:
        """Drop what is over for a day; blur what is too much to keep."""
        oldest_s = self._clock.seconds() - WINDOW_S
        while len(self._spans) > 1 and self._spans[1][1] < oldest_s:
            del self._spans[0]
        if len(self._spans) > MAX_SPANS:
            least_s = 30.0
            while len(self._spans) > MAX_SPANS // 2:
                self._blur(least_s)
                least_s *= 2

    def _blur(self, least_s: float) -> None:
        """
        Let short spans be swallowed by those before them. How long it was asleep, or unknown, stays exact.
        """
        exact = (Mode.ASLEEP, Mode.UNKNOWN)
        kept: list[tuple[Mode, float]] = []
        for number, (mode, began_s) in enumerate(self._spans):
            is_last = number + 1 == len(self._spans)
            short = not is_last and self._spans[number + 1][1] - began_s < least_s
            if kept and kept[-1][0] not in exact and mode not in exact and (short or mode is kept[-1][0]):
                continue
            kept.append((mode, began_s))
        if len(kept) == len(self._spans) and least_s > WINDOW_S:
            del kept[: len(kept) - MAX_SPANS // 2]
        self._spans = kept
