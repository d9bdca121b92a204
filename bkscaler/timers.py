"""Named timers on a clock, each armed for at most one moment. Any room may import it."""

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
