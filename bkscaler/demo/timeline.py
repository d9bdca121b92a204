"""
What a demo has to show, and what it has shown so far: one line for each thing, as it happens.

:class:`Step` is the table of everything that must happen; a demo has succeeded when nothing of it is
missing. Pure, but for the ``write`` that it is given. Imported by the other modules of the demo.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime


class Step(Enum):
    """What must happen, in this order; the value is the word that is printed."""

    CLUSTER_UP = "cluster up"
    PROXY_READY = "bkscaler ready"
    CONNECTED = "client connected"
    WOKEN = "replicas 0 -> 1"
    POD_READY = "pod ready"
    ANSWERED = "first byte answered"
    COMPARED = "bytes compared"
    LAST_GONE = "last client gone"
    IDLE = "idle"
    ASLEEP = "replicas 1 -> 0"
    POD_GONE = "pod gone"
    ENDED = "bkscaler ended"


class Timeline:
    """
    The lines of one demo. Lives as long as it.

    :param clock: tells the time; the first line is at 0.
    :param write: takes each line, without its end.
    """

    def __init__(self, clock: IReactorTime, write: Callable[[str], object]) -> None:
        self._clock = clock
        self._write = write
        self._began_s = clock.seconds()
        self._happened_s: dict[Step, float] = {}
        self._waiting: dict[Step, list[Deferred[None]]] = {}

    def __repr__(self) -> str:
        return f"<Timeline, {len(self._happened_s)} of {len(Step)} steps>"

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock.seconds() - self._began_s

    @property
    def missing(self) -> list[Step]:
        """The steps that have not happened, in the order of the table."""
        return [step for step in Step if step not in self._happened_s]

    def note(self, words: str) -> None:
        """Print a line that is no step."""
        self._line(" ", words)

    def happened(self, step: Step, detail: str = "") -> None:
        """
        Print a step and let those who wait for it go on. One that happens again is printed again.

        :param step: which.
        :param detail: what else there is to say.
        """
        self._happened_s[step] = self._clock.seconds()
        self._line("*", f"{step.value:<20} {detail}".rstrip())
        for waiting in self._waiting.pop(step, []):
            waiting.callback(None)

    def since(self, step: Step) -> str:
        """Say how long ago a step happened last, ``""`` when it has not."""
        at_s = self._happened_s.get(step)
        return "" if at_s is None else f"{self._clock.seconds() - at_s:.3f} s"

    def when(self, step: Step) -> Deferred[None]:
        """
        Wait for a step.

        :returns: fires with None, at once when it has happened; never fails. Cancelling ends this wait
            alone.
        """
        if step in self._happened_s:
            return succeed(None)
        waiters = self._waiting.setdefault(step, [])
        waiting: Deferred[None] = Deferred(waiters.remove)
        waiters.append(waiting)
        return waiting

    def _line(self, mark: str, words: str) -> None:
        self._write(f"{self.elapsed_s:8.3f} s {mark} {words}")
