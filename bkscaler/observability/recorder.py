"""
Takes in what the rooms report, and keeps metrics, wakes and history in step.

Its methods are the hooks that the plugin gives to the rooms. Reporting may fail without failing the work:
whatever is raised in here is logged, and the caller never hears of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bkscaler.errors import ApiStatus, Conflict
from bkscaler.model import Connection
from bkscaler.observability.history import History, Kind
from bkscaler.observability.metrics import Metrics
from bkscaler.observability.outcomes import NO_BUILDER, NOT_SERVED, Outcome
from bkscaler.observability.wakes import Result, Wake, WakeMeter
from bkscaler.observability.words import spoken
from bkscaler.scaling.machine import State
from bkscaler.scaling.policy import ScaleTo
from bkscaler.scaling.snapshot import Snapshot

Hook = TypeVar("Hook", bound=Callable[..., None])


def _harmless(method: Hook) -> Hook:
    """Log what a hook raises, and go on."""

    @wraps(method)
    def guarded(self: Recorder, *args: object) -> None:
        try:
            method(self, *args)
        except Exception:
            self.log.failure("reporting failed; the work goes on")

    return cast(Hook, guarded)


class Recorder:
    """
    The reports of one process.

    :param clock: tells the time.
    :param metrics: counts.
    :param history: remembers.
    :ivar wakes: measures.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, metrics: Metrics, history: History) -> None:
        self.metrics = metrics
        self.history = history
        self.wakes = WakeMeter(clock, self._woke, self._first_byte)
        self._state = State.UNKNOWN
        self._waiting_for = ""

    @_harmless
    def settle(self) -> None:
        """Decide what can be decided, before anything is read."""
        self.wakes.settle()

    @_harmless
    def accepted(self) -> None:
        """Hear of a connection that was accepted."""
        self.metrics.accepted.inc()

    @_harmless
    def joined(self, waited_s: float) -> None:
        """Hear that a client was joined to a builder, and how long it has waited."""
        self.metrics.held_and_joined.observe(waited_s)
        self.wakes.client_joined()

    @_harmless
    def ended(self, outcome: Outcome, connection: Connection) -> None:
        """Hear how a connection ended."""
        self.metrics.add_end(outcome, connection)
        if connection.joined_s is None and outcome not in (Outcome.PROBE, Outcome.OVER_LIMIT):
            self.metrics.held_in_vain.observe(connection.waited_s)
        if outcome in NOT_SERVED:
            because = f": {connection.why}" if connection.why else ""
            self.history.failed()
            self.history.happened(
                Kind.FAILURE, f"a client was not served, {outcome.value}{because}", bad=True
            )
        if outcome in NO_BUILDER:
            self.wakes.client_told(connection.why)
        self.wakes.settle()

    @_harmless
    def changed(self, snapshot: Snapshot) -> None:
        """Hear that something has changed about the builder, or about the need for it."""
        if snapshot.state is not self._state:
            self._state = snapshot.state
            self.metrics.enter(snapshot.state)
            self.history.enter(snapshot.state)
            if snapshot.state in (State.ASLEEP, State.IDLE, State.MISSING):
                self.history.happened(Kind.STATE, f"builder is {snapshot.state.value}")
        self.wakes.look(snapshot)
        waiting_for = snapshot.waiting_for if self.wakes.began_s is not None else ""
        if waiting_for and waiting_for != self._waiting_for:
            bad = snapshot.observation is not None and snapshot.observation.hopeless
            self.history.happened(Kind.WAITING, waiting_for, bad=bad)
        self._waiting_for = waiting_for

    @_harmless
    def scaled(self, decision: ScaleTo, error: Exception | None) -> None:
        """Hear what became of a scale request."""
        result = _result(error)
        self.metrics.scale_requests.labels("down" if decision.down else "up", result).inc()
        words = f"scaled to {decision.replicas}, {decision.reason}"
        if error is not None:
            words = f"could not scale to {decision.replicas}: {error}"
        self.history.happened(Kind.SCALE, words, bad=result in ("refused", "failed"))
        if error is None and not decision.down:
            self.wakes.scaled_up()

    @_harmless
    def answered(self, verb: str, code: int) -> None:
        """Hear of an answer of the API server; code 0 stands for none."""
        self.metrics.api_requests.labels(verb, str(code) if code else "none").inc()

    @_harmless
    def restarted(self, reason: str) -> None:
        """Hear that a watch is begun anew."""
        self.metrics.watch_restarts.labels(reason).inc()
        if reason not in ("ended", "expired"):
            self.history.happened(Kind.API, f"lost touch with the Kubernetes API: {reason}", bad=True)

    def _woke(self, wake: Wake) -> None:
        self.metrics.wakes.labels(wake.result.value).inc()
        took = spoken(wake.took_s)
        because = f": {wake.reason}" if wake.reason else ""
        if wake.result is Result.READY:
            self.metrics.wake_seconds.observe(wake.took_s)
            for phase, seconds in wake.phases.items():
                self.metrics.wake_phase_seconds.labels(phase.value).observe(seconds)
            because = ""
        self.history.woke(wake)
        words = {
            Result.READY: f"awake after {took}",
            Result.FAILED: f"the wake failed after {took}",
            Result.ABANDONED: f"nobody waits any more after {took}",
        }
        self.history.happened(Kind.WAKE, words[wake.result] + because, bad=wake.result is Result.FAILED)

    def _first_byte(self, seconds: float) -> None:
        self.metrics.wake_phase_seconds.labels("first_byte").observe(seconds)
        self.history.first_byte(seconds)


def _result(error: Exception | None) -> str:
    """Choose the word of :data:`bkscaler.observability.metrics.SCALE_RESULTS`."""
    if error is None:
        return "ok"
    if isinstance(error, Conflict):
        return "conflict"
    return "refused" if isinstance(error, ApiStatus) and error.code < 500 else "failed"
