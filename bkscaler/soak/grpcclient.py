"""
The gRPC clients of a soak: those of the simulation, on real sockets. Imported by ``soak.crowd``.
"""

from __future__ import annotations

import math
from collections import deque

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from bkscaler.simulation.callers import Builds
from bkscaler.soak.clients import Later
from bkscaler.soak.errands import Ending, Errand
from bkscaler.soak.views import View


class _RightNow:
    """A clock in the way of the simulation's."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.callLater = clock.callLater

    @property
    def rightNow(self) -> float:
        return self._clock.seconds()


class GrpcClient(Builds):
    """
    A gRPC client, the simulation's, that keeps a view.

    :param view: what it knows of itself.
    :param errand: what it does.
    :param clock: for all times.
    """

    def __init__(self, view: View, errand: Errand, clock: IReactorTime) -> None:
        super().__init__(view.name, _RightNow(clock))  # type: ignore[arg-type]  # as far as it looks
        self.view = view
        self._errand = errand
        self._acts = Later(clock)
        self._to_say = deque(errand.says)

    def connectionMade(self) -> None:
        """Begin."""
        super().connectionMade()
        self.view.came_s = self._clock.rightNow
        self.transport.setTcpNoDelay(True)
        self._acts.do(self._errand.patience_s, self._lose_patience)
        self._go_on()

    def say(self, size: int) -> None:
        """Make a call."""
        if self.view.gone_s == math.inf:
            self.view.waits_s = self._clock.rightNow
            self.view.spoke_s = min(self.view.spoke_s, self.view.waits_s)
            super().say(size)

    def leave(self, ending: Ending | None = None) -> None:
        """Leave, unless it has left; it never half-closes."""
        if self.view.gone_s < math.inf:
            return
        self.view.left_s, self.view.waits_s = self._clock.rightNow, math.inf
        if (ending or self._errand.ending) is Ending.RESET:
            self.view.reset = True
            self.reset()
        else:
            self.hang_up()

    def dataReceived(self, data: bytes) -> None:
        """Take answers."""
        answered = self.answered
        super().dataReceived(data)
        view, now_s = self.view, self._clock.rightNow
        view.wrong = view.wrong or self.wrong or "; ".join(self.refusals)
        if self.answered == answered or view.gone_s < math.inf:
            return
        view.served_s = min(view.served_s, now_s)
        view.waits_s = now_s if self.calls else math.inf
        if not self.calls:
            self._go_on()

    def readConnectionLost(self) -> None:
        """Close, too."""
        self._note_cut()
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember the end."""
        self._note_cut()
        self.view.lost_s, self.view.waits_s = self._clock.rightNow, math.inf
        self._acts.drop()
        super().connectionLost(reason)

    def _go_on(self) -> None:
        if self._to_say:
            pause_s, size = self._to_say.popleft()
            self._acts.do(pause_s, lambda: self.say(size))
        else:
            self._acts.do(self._errand.stays_s, self.leave)

    def _lose_patience(self) -> None:
        """Leave, or take the calls back first."""
        if self._errand.cancels and self.view.gone_s == math.inf:
            self.view.cancelled, self.view.waits_s = True, math.inf
            self.cancel()
            self._acts.do(0.3, self.leave)
        else:
            self.leave()

    def _note_cut(self) -> None:
        if self.view.gone_s == math.inf:
            self.view.cut_s = self._clock.rightNow
