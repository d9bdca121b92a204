"""
The scaler: takes in demand and observations, lets the policy decide, and sees to it that it is done.

Every input ends in :meth:`Scaler._review`, the only place that acts: it keeps the timers that the state
calls for, starts at most one scale request at a time, and serves those who wait.

Races, and what is done about each:

- *Somebody arrives while a scale-down is on its way.* The state is ``GOING_TO_SLEEP``, in which nobody is
  given a replica; when the answer is known the set is woken again.
- *The answer to a scale-down is lost.* It may have taken effect, so the state stays until a later read
  says what became of it. A request that certainly was not carried out (refused connection, 4xx) ends it
  at once. Because of a lost answer nobody can be given a builder that may be dying, a scale-down is only
  sent after a read has succeeded: an API outage does not keep clients from a builder that is up.
- *The version is stale (409).* Look again, decide again; the second conflict in a row waits first.
- *A client gives up while the builder wakes.* Only its own hold and its own Deferred go; the wake goes on
  for the others, and without others the idle timer runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bkscaler.errors import IllegalMove, WakeImpossible
from bkscaler.model import Observation, Replica
from bkscaler.scaling.demand import Demand, Needs
from bkscaler.scaling.machine import Event, Facts, Machine, State
from bkscaler.scaling.policy import Decision, Limits, ScaleTo, WaitUntil, decide
from bkscaler.scaling.refusals import Refusals
from bkscaler.scaling.requests import READ, SCALE, Cluster, ScaleRequests
from bkscaler.scaling.snapshot import Snapshot
from bkscaler.scaling.telling import Report, Telling, tell_nobody
from bkscaler.scaling.waiters import Waiters
from bkscaler.timers import Timers

POLL_S = 2.0
"""While a client waits, how often a read backs the watch up: a watch can be silently dead for a minute."""
SLOW_POLL_S = 30.0
"""The same while nobody waits, but a client is joined to a builder that is not ready any more."""
ROUNDING_S = 0.001
"""A timer that fires this much early, as sums of floats may make it, has fired in time."""
SHUTTING_DOWN = "bkscaler is shutting down"
MISSING_GRACE_S = 5.0
"""How long a set is missing before clients are told, after a look: replacing it deletes it for a moment."""


class Hold:
    """
    One client's demand. Made by :meth:`Scaler.hold`; ends with :meth:`release`.

    :ivar name: its unique name.
    """

    def __init__(self, scaler: Scaler, name: str) -> None:
        self.name = name
        self._scaler = scaler
        self._asked = False

    def when_ready(self) -> Deferred[Replica]:
        """
        Wait for a replica. May be called again, for example after a dial that failed.

        :returns: fires with a replica that may be dialled now, synchronously when there is one; fails
            with `WakeImpossible`. Cancelling ends this wait alone: neither the hold nor the wake.
        """
        again, self._asked = self._asked, True
        return self._scaler.wait(again=again)

    def ready_now(self) -> Replica | None:
        """
        Ask for a replica without waiting; counts as having asked.

        :returns: one that may be dialled now; None when it has to be waited for.
        """
        self._asked = True
        return self._scaler.ready_now()

    def release(self) -> None:
        """End the demand. May be called any number of times, from any callback."""
        self._scaler.demand.discard(self.name)

    @property
    def waiting_for(self) -> str:
        """Why there is no replica yet, one line; ``""`` when nothing is known to say."""
        return self._scaler.waiting_for


class Scaler(Service):
    """
    Keeps the set as large as the demand asks for. One for each StatefulSet; lives as long as the process.

    :param clock: for timers and durations.
    :param cluster: where requests go.
    :param limits: what may be decided.
    :param random: gives numbers in [0, 1), for jitter.
    :param give_up_after_s: how long a wait that looks hopeless may go on, > 0; infinite: to its deadline.
    :param report: told what becomes of the builder.
    :param on_change: told after each event, for reports; must not raise, and not call back.
    :param on_result: told what became of each scale request, for reports; must not raise.
    :ivar demand: the holds.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        cluster: Cluster,
        limits: Limits,
        random: Callable[[], float],
        give_up_after_s: float = math.inf,
        report: Report = tell_nobody,
        on_change: Callable[[Snapshot], None] | None = None,
        on_result: Callable[[ScaleTo, Exception | None], None] = lambda _decision, _error: None,
    ) -> None:
        self.demand = Demand(self._demand_changed)
        self._clock = clock
        self._limits = limits
        self._give_up_after_s = give_up_after_s
        self._on_change = on_change
        self._machine = Machine(clock.seconds())
        self._timers = Timers(clock)
        self._observation: Observation | None = None
        self._waiters = Waiters(clock)
        self._hopeless_since_s = math.inf
        self._troubles: dict[str, str] = {}
        self._read_refusals = Refusals(clock)
        self._telling = Telling(report)
        self._doubted_s = -math.inf
        self._sleep_sent = self._stopped = False
        self._reviewing = self._review_again = False
        self._requests = ScaleRequests(
            clock=clock,
            cluster=cluster,
            random=random,
            on_free=self._requests_free,
            on_checked=self._sleep_if_idle,
            on_forbidden=self._fail,
            on_answer=self._heard_from_api,
            on_scaled=self._scaled,
            on_result=on_result,
        )

    def __repr__(self) -> str:
        return f"<Scaler {self._machine.state.value}, {len(self.demand)} holds, {len(self._waiters)} waiting>"

    def hold(self, name: str) -> Hold:
        """
        Need a builder, from now until the hold is released.

        :param name: unique; see :mod:`bkscaler.scaling.demand`.
        :raises ValueError: when a hold of that name exists.
        """
        self.demand.add(name)
        return Hold(self, name)

    def wait(self, *, again: bool = False) -> Deferred[Replica]:
        """
        Wait for a replica; see :meth:`Hold.when_ready`.

        :param again: the last answer was of no use, so what is known may be out of date.
        """
        if self._stopped:
            return fail(WakeImpossible(SHUTTING_DOWN))
        if again and self._clock.seconds() >= self._doubted_s + POLL_S:
            self._doubted_s = self._clock.seconds()
            self._requests.refresh()
        replica = self.ready_now()
        if replica is not None:
            return succeed(replica)
        waiter = self._waiters.add()
        if self._machine.state is State.MISSING:
            self._requests.refresh()
        self._review()
        return waiter

    def observed(self, observation: Observation) -> None:
        """Take in what is now known of the cluster. Called by whatever observes it, on each change."""
        self._observation = observation
        if not observation.hopeless:
            self._hopeless_since_s = math.inf
        elif math.isinf(self._hopeless_since_s):
            self._hopeless_since_s = self._clock.seconds()
        self._telling.observed(observation, self._clock.seconds())
        self._send(Event.OBSERVED)

    def gave_up(self) -> None:
        """Take note that a client's time was over before there was a replica for it."""
        self._telling.failed(self.waiting_for or "not ready in time")

    @property
    def waiting_for(self) -> str:
        """Why there is no replica yet, one line; ``""`` when nothing is known to say."""
        silent = "the Kubernetes API has not answered yet" if self._requests.sending else ""
        return self._known_reason() or silent

    def _known_reason(self) -> str:
        if self._troubles:
            return f"the Kubernetes API: {'; '.join(dict.fromkeys(self._troubles.values()))}"
        if self._observation is None:
            return "the StatefulSet has not been seen yet"
        if self._requests.undone and not self._observation.replicas:
            return "something else scales the StatefulSet back to 0 each time"
        return self._observation.waiting_for

    def drain(self) -> None:
        """From now on never put the builder to sleep: the process is ending, its successor will decide."""
        self._limits = replace(self._limits, idle_timeout_s=math.inf)
        self._review()

    def snapshot(self) -> Snapshot:
        """Report the present state; nobody outside decides by it."""
        idle_since_s = self._machine.idle_since_s
        sleeps_at_s = math.inf if idle_since_s is None else idle_since_s + self._limits.idle_timeout_s
        return Snapshot(
            state=self._machine.state,
            since_s=self._machine.since_s,
            holds=len(self.demand),
            waiting=len(self._waiters),
            sleeps_at_s=sleeps_at_s if math.isfinite(sleeps_at_s) else None,
            observation=self._observation,
            wanted=self._limits.wanted(self._needs()),
            waiting_for=self._known_reason(),
        )

    def startService(self) -> None:
        """Begin to act."""
        super().startService()  # type: ignore[no-untyped-call]  # Service has no annotations
        self._review()

    def stopService(self) -> Deferred[None]:
        """
        Cease to act, for good: requests are cancelled, waits fail with `WakeImpossible`. The builder is left
        as it is.

        :returns: fires with None when no request is pending and no delayed call is left; never fails.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # nor here
        self._stopped = True
        self._timers.cancel_all()
        ended = self._requests.stop()
        self._waiters.fail(SHUTTING_DOWN)
        return ended

    def _demand_changed(self) -> None:
        self._send(Event.ARRIVED if len(self.demand) else Event.DEPARTED)

    def _requests_free(self) -> None:
        """The fate of a request is known; of a scale-down this ends the state it caused."""
        if self._sleep_sent and not self._requests.sending:
            self._sleep_sent = False
            self._send(Event.ANSWERED)
        else:
            self._review()

    def _scaled(self, decision: ScaleTo) -> None:
        waking = self._machine.state is State.WAKING
        self._telling.scaled(decision, self._machine.since_s if waking else self._clock.seconds())

    def _fail(self, reason: str, *, since_s: float = math.inf) -> None:
        """Tell those who wait that the builder does not come; see :meth:`Waiters.fail`."""
        if self._waiters.fail(reason, since_s=since_s):
            self._telling.failed(reason)

    def _sleep_if_idle(self, looked_s: float) -> None:
        """
        If sleep is still right, nobody is given a replica any more; but if somebody has come and left again
        since the look began, there has to be another one.
        """
        decision, idle_since_s = self._decide(), self._machine.idle_since_s
        fresh = idle_since_s is not None and idle_since_s <= looked_s
        if self.running and isinstance(decision, ScaleTo) and decision.down and fresh:
            self._sleep_sent = True
            self._tell(Event.SLEEP_SENT)
            self._requests.start(decision)
        self._review()

    def _send(self, event: Event) -> None:
        self._tell(event)
        self._review()

    def _tell(self, event: Event) -> None:
        """Tell the machine at once, while the facts are those of the event; a move it refuses is our bug."""
        facts = Facts(
            observation=self._observation,
            needs=self._needs(),
            minimum=self._limits.minimum,
            sleep_sent=self._sleep_sent,
        )
        now_s = self._clock.seconds()
        try:
            changed = self._machine.send(event, facts, now_s)
        except IllegalMove:
            self.log.failure("the table of states is wrong; going on from what is so")
            changed = self._machine.resume(facts, now_s)
        if changed:
            self.log.info("builder is {state}", event="builder_state", state=self._machine.state.value)
        if self._on_change is not None:
            self._on_change(self.snapshot())

    def _needs(self) -> Needs:
        return Needs(own=len(self.demand))

    def _review(self) -> None:
        """Decide and act until nothing is left to do; safe to call while it runs."""
        if not self.running:
            return
        self._review_again = True
        if self._reviewing:
            return
        self._reviewing = True
        try:
            while self._review_again and self.running:
                self._review_again = False
                self._act()
                self._waiters.serve(self.ready_now)
        finally:
            self._reviewing = False

    def _act(self) -> None:
        """Start what was decided, and keep the timers that the state calls for."""
        decision = self._decide()
        if not isinstance(decision, ScaleTo):
            self._requests.lapsed(None if self._observation is None else self._observation.replicas)
            if not self._requests.unfinished:  # otherwise it may be what the next client waits for
                self._troubles.pop(SCALE, None)
        elif self._requests.free_for(decision):
            (self._requests.check if decision.down else self._requests.start)(decision)
        idle_s = decision.at_s if isinstance(decision, WaitUntil) else math.inf
        self._timers.keep("idle", idle_s, self._review)
        self._timers.keep("poll", self._next_poll_s(self._clock.seconds()), self._poll)
        missing = self._machine.state is State.MISSING and bool(self._waiters)
        tell_s = self._machine.since_s + MISSING_GRACE_S
        soon = missing and tell_s > self._clock.seconds()
        self._timers.keep("missing", tell_s if soon else math.inf, self._poll)
        hopeless_s = max(self._hopeless_since_s, self._waiters.longest_since_s)
        self._timers.keep("hopeless", hopeless_s + self._give_up_after_s, self._tell_hopeless)

    def _decide(self) -> Decision:
        now_s, idle_since_s = self._clock.seconds(), self._machine.idle_since_s
        return decide(self._observation, self._needs(), self._limits, now_s, idle_since_s)

    def _next_poll_s(self, now_s: float) -> float:
        """Say when to back the watch up next: at multiples of the interval since the state was entered."""
        waking = self._machine.state is State.WAKING
        blind = waking or self._machine.state in (State.UNKNOWN, State.MISSING)
        if not blind or not (self._waiters or waking):
            return math.inf
        interval_s = POLL_S if self._waiters else SLOW_POLL_S
        done = math.floor((now_s - self._machine.since_s + ROUNDING_S) / interval_s)
        return self._machine.since_s + interval_s * (done + 1)

    def _poll(self) -> None:
        self._requests.refresh()
        self._review()

    def _tell_missing(self) -> None:
        """After a read: tell those who wait for a set that it did not find, and that is missing for long."""
        seen, over_s = self._observation, self._machine.since_s + MISSING_GRACE_S - ROUNDING_S
        if seen and self._machine.state is State.MISSING and self._clock.seconds() >= over_s:
            self._fail(seen.waiting_for or "there is no such StatefulSet")

    def _tell_hopeless(self) -> None:
        """Tell those who have waited long enough for something that time will rarely mend."""
        enough_s = self._clock.seconds() - self._give_up_after_s + ROUNDING_S
        if self._observation is not None and self._hopeless_since_s <= enough_s:
            self._fail(self._observation.waiting_for, since_s=enough_s)
        self._review()

    def _heard_from_api(self, what: str, error: Exception | None) -> None:
        """Remember what is wrong with the API; without the right to read nothing will ever be seen."""
        self._troubles.pop(what, None)
        if error is not None:
            self._troubles[what] = str(error)
        refused = self._read_refusals.believed(error) if what == READ else ""
        if refused and self._machine.state is State.UNKNOWN:
            self._fail(refused)
        if what == READ and error is None:
            self._tell_missing()

    def ready_now(self) -> Replica | None:
        """Choose among the replicas that are ready; None when nobody may be given one."""
        if self._stopped or self._machine.state is not State.AWAKE or self._observation is None:
            return None
        return self._observation.ready[0]
