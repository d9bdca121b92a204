"""
Measuring wakes: how long clients need a builder that is not there, what became of it, and in which phases.

A wake lasts as long as somebody needs a builder and none is ready, however that came about: a set at zero,
a pod that was lost under its clients, a set that does not exist. It ends in one of three ways, see
:class:`Result`. Told by ``observability.recorder``; pure but for the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from twisted.internet.interfaces import IReactorTime

from bkscaler.model import Stage
from bkscaler.scaling.machine import State
from bkscaler.scaling.snapshot import Snapshot


class Result(Enum):
    """How a wake ended; the value is the word in the metric and in ``/status``."""

    READY = "ready"
    """A builder was ready."""
    FAILED = "failed"
    """Nobody waits any more, and at least one client was told that there is no builder."""
    ABANDONED = "abandoned"
    """Nobody waits any more: the clients left by themselves, or we were told to stop."""


class Phase(Enum):
    """The parts of a wake, one after the other; each is counted from the end of the one before."""

    PATCH = "patch"
    """Until the API server has carried out our scale request."""
    SCHEDULED = "scheduled"
    """Until the pod is there and a node has been chosen."""
    STARTED = "started"
    """Until its containers run: volumes, image pull, init containers."""
    READY = "ready"
    """Until the pod can be given clients."""
    FIRST_BYTE = "first_byte"
    """Until the first client is joined; for a gRPC client that is the builder's first byte."""


_BY_STAGE = {Stage.SCHEDULED: Phase.SCHEDULED, Stage.STARTED: Phase.STARTED}


@dataclass(frozen=True, kw_only=True)
class Wake:
    """
    One wake that has ended.

    :param began_s: time on the clock when the first client needed a builder.
    :param took_s: how long it lasted.
    :param result: how it ended.
    :param reason: what it was waiting for last, or why it failed; ``""`` when nothing is known to say.
    :param phases: seconds of each phase that was gone through.
    """

    began_s: float
    took_s: float
    result: Result
    reason: str = ""
    phases: dict[Phase, float] = field(default_factory=dict)


class _Open:
    """A wake that goes on."""

    def __init__(self, now_s: float, stage: Stage) -> None:
        self.began_s = now_s
        self.stage = stage
        self.marks_s: dict[Phase, float] = {}
        self.reason = self.failure = ""

    def look(self, stage: Stage, reason: str, now_s: float) -> None:
        """Mark the stages that have been reached; forget those of a pod that is gone."""
        for each, phase in _BY_STAGE.items():
            if self.stage < each <= stage:
                self.marks_s[phase] = now_s
            elif each > stage:
                self.marks_s.pop(phase, None)
        self.stage = stage
        self.reason = reason or self.reason

    def end(self, result: Result, ended_s: float) -> Wake:
        """Make the record of it."""
        if result is Result.READY:
            self.marks_s[Phase.READY] = ended_s
        phases, before_s = {}, self.began_s
        for phase in Phase:
            if phase in self.marks_s:
                phases[phase] = max(0.0, self.marks_s[phase] - before_s)
                before_s = max(before_s, self.marks_s[phase])
        reason = self.failure or self.reason
        took_s = ended_s - self.began_s
        return Wake(began_s=self.began_s, took_s=took_s, result=result, reason=reason, phases=phases)


class WakeMeter:
    """
    Makes wakes out of what it is told. Lives as long as the process.

    :param clock: tells the time.
    :param on_end: called with each wake that has ended.
    :param on_first_byte: called after a wake that was ready with the seconds of :attr:`Phase.FIRST_BYTE`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        on_end: Callable[[Wake], None],
        on_first_byte: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._on_end = on_end
        self._on_first_byte = on_first_byte
        self._open: _Open | None = None
        self._left_at_s: float | None = None
        self._ready_at_s: float | None = None

    @property
    def began_s(self) -> float | None:
        """Time on the clock when the wake that goes on began; None when none does."""
        return None if self._open is None or self._left_at_s is not None else self._open.began_s

    def look(self, snapshot: Snapshot) -> None:
        """Take in what holds now."""
        self.settle()
        now_s = self._clock.seconds()
        stage = Stage.ABSENT if snapshot.observation is None else snapshot.observation.stage
        awake = snapshot.state is State.AWAKE
        if not awake:
            self._ready_at_s = None
        if snapshot.holds and not awake:
            if self._open is None:
                self._open = _Open(now_s, stage)
            self._open.look(stage, snapshot.waiting_for, now_s)
        elif self._open is not None and awake:
            self._open.look(stage, "", now_s)
            self._ready_at_s = now_s
            self._end(Result.READY, now_s)
        elif self._open is not None:
            self._left_at_s = now_s

    def scaled_up(self) -> None:
        """Hear that the API server has carried out a request for more replicas."""
        if self._open is not None:
            self._open.marks_s[Phase.PATCH] = self._clock.seconds()

    def client_told(self, why: str) -> None:
        """Hear that a client was told that there is no builder. That decides the wake it waited for."""
        if self._open is not None:
            self._open.failure = why or "a client was not served"

    def client_joined(self) -> None:
        """Hear that a client was joined to the builder."""
        if self._ready_at_s is not None:
            ready_at_s, self._ready_at_s = self._ready_at_s, None
            self._on_first_byte(self._clock.seconds() - ready_at_s)

    def settle(self) -> None:
        """
        Decide about a wake that nobody waits for any more. A client's demand ends a moment before its
        outcome is told, so this is done when that has been heard, or whatever comes next, or before anything
        is read.
        """
        if self._open is not None and self._left_at_s is not None:
            self._end(Result.FAILED if self._open.failure else Result.ABANDONED, self._left_at_s)

    def _end(self, result: Result, ended_s: float) -> None:
        assert self._open is not None
        wake = self._open.end(result, ended_s)
        self._open = self._left_at_s = None
        self._on_end(wake)
