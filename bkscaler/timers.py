"""Named timers on a clock, each armed for at most one moment, and limits of time. Any room may import it."""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timers:
    """
    A few named timers of one owner, so that the owner can say what should be and leave the rest to it.

    :param clock: where the calls are scheduled.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: dict[str, tuple[float, IDelayedCall]] = {}

    def keep(self, name: str, at_s: float, act: Callable[[], None]) -> None:
        """
        See to it that the named timer fires at a moment. May be called again and again.

        :param name: which timer.
        :param at_s: time on the clock; in the past means as soon as possible; infinite means never, which
            cancels the timer.
        :param act: called when the moment has come; the timer is then gone.
        """
        pending = self._calls.get(name)
        if pending is not None and pending[0] == at_s:
            return
        self.cancel(name)
        if math.isfinite(at_s):
            delay_s = max(0.0, at_s - self._clock.seconds())
            self._calls[name] = (at_s, self._clock.callLater(delay_s, self._fire, name, act))

    def cancel(self, name: str) -> None:
        """Cancel a timer; nothing happens when it is not armed."""
        pending = self._calls.pop(name, None)
        if pending is not None:
            pending[1].cancel()

    def cancel_all(self) -> None:
        """Cancel every timer."""
        for name in list(self._calls):
            self.cancel(name)

    def _fire(self, name: str, act: Callable[[], None]) -> None:
        del self._calls[name]
        act()


class TimeLimit:
    """
    One limit of time for many, of whom few ever reach it. A single delayed call serves all of them; it may
    be left, for no longer than the limit, when everybody is done.

    :param clock: where the call is scheduled.
    :param limit_s: seconds, > 0, the same for everybody.
    """

    def __init__(self, clock: IReactorTime, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        self._call: IDelayedCall | None = None

    def begin(self, who: object, act: Callable[[], None]) -> None:
        """
        Begin to count for somebody.

        :param who: hashable; does not count already.
        :param act: called when the limit is reached, unless :meth:`end` is called before.
        """
        self._due[who] = (self._clock.seconds() + self._limit_s, act)
        if self._call is None:
            self._call = self._clock.callLater(self._limit_s, self._look)

    def end(self, who: object) -> None:
        """Count no more for somebody; nothing happens to one who does not count."""
        self._due.pop(who, None)

    def stop(self) -> None:
        """Forget everybody."""
        self._due.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        """Call for everybody whose time is over, oldest first; come back for the next."""
        self._call = None
        while self._due:
            who, (at_s, act) = next(iter(self._due.items()))
            left_s = at_s - self._clock.seconds()
            if left_s > 0:
                self._call = self._clock.callLater(left_s, self._look)
                return
            del self._due[who]
            act()
