"""Virtual time: a clock on which one call after another is carried out, each at its own moment."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock


class Call(DelayedCall):
    """
    A call that is to come.

    :ivar owner: the host of the process that made it; None for everybody else's.
    """

    owner: Any = None
    cancelled = called = 0
    delayed_time = 0.0

    def __init__(
        self, clock: VirtualTime, time: float, func: Callable[..., object], args: Any, kw: dict[str, object]
    ) -> None:
        self._clock = clock
        self.time, self.func, self.args, self.kw = time, func, args, kw

    def seconds(self) -> float:
        """Tell the time."""
        return self._clock.rightNow

    def canceller(self, call: DelayedCall) -> None:
        """Leave it where it is: it is skipped when its time comes."""

    def resetter(self, call: DelayedCall) -> None:
        """An earlier time needs a new place; a later one is found out when the old time comes."""
        self._clock._push(self)


class VirtualTime(Clock):
    """
    A Clock that jumps from call to call. Calls of the same moment come in the order they were made.

    A call whose owner is dead when it is due is not carried out, and stays as it is.

    Where ``Clock`` sorts all its calls each time one is made, this one keeps a heap.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[float, int, Call]] = []
        self._numbers = count()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> Call:
        """Schedule a call."""
        time = self.rightNow + delay
        call = Call(self, time, callable, args, kw)
        heapq.heappush(self._heap, (time, next(self._numbers), call))
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """List what is scheduled, by time."""
        calls = dict.fromkeys(entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2]))
        return [call for call in calls if call.active()]

    def advance(self, amount: float) -> None:
        """Carry out what is due within so many seconds, and stand at their end."""
        end_s = self.rightNow + amount
        while (next_s := self.next_s()) is not None and next_s <= end_s:
            self.run_next()
        self.rightNow = end_s

    def next_s(self) -> float | None:
        """Give the time of the next call; None when there is none."""
        heap = self._heap
        while heap:
            due_s, _, call = heap[0]
            if call.cancelled or call.called:
                heapq.heappop(heap)
            elif call.delayed_time and call.getTime() > due_s:
                heapq.heappop(heap)
                self._push(call)
            else:
                return due_s
        return None

    def run_next(self) -> Any:
        """Go to the next call's moment and carry it out. Only right after :meth:`next_s` has found it."""
        due_s, _, call = heapq.heappop(self._heap)
        self.rightNow = max(self.rightNow, due_s)
        if call.owner is not None and not call.owner.alive:
            return
        call.called = 1
        call.func(*call.args, **call.kw)

    def _push(self, call: Call) -> None:
        heapq.heappush(self._heap, (call.getTime(), next(self._numbers), call))
