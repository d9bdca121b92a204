"""
The scheduler and the one node's kubelet: gives every pod its :class:`~bkscaler.sandbox.podlife.PodLife`.

It hears of pods from the state and moves their lives by the clock, never from within a notification.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from bkscaler.sandbox.eventlog import EventLog
from bkscaler.sandbox.objects import Now, Object, Random
from bkscaler.sandbox.podlife import PodLife, Tools
from bkscaler.sandbox.podrecord import PodRecord
from bkscaler.sandbox.pods import Behaviour, BrokenRunner, FailureMode, PodRunner
from bkscaler.sandbox.state import Change, State

CRASH_AFTER_S = 0.5
"""Seconds until a container crashes under ``--fail crash``."""


class Kubelet:
    """
    Leads the lives of all pods. Works from :meth:`start` to :meth:`stop`.

    :param behaviour: delays and failures, read when they matter.
    :param runner: runs the containers; not stopped by this class.
    """

    def __init__(
        self,
        state: State,
        *,
        clock: IReactorTime,
        now: Now,
        random: Random,
        events: EventLog,
        behaviour: Behaviour,
        runner: PodRunner,
    ) -> None:
        self._state = state
        self._clock = clock
        self._now = now
        self._events = events
        self._behaviour = behaviour
        self._runner = runner
        self._crashing = BrokenRunner(clock, random, CRASH_AFTER_S)
        self._never_ready = BrokenRunner(clock, random, None)
        self._lives: dict[str, PodLife] = {}
        self._calls: list[IDelayedCall] = []
        self._unsubscribe: Callable[[], None] | None = None
        self._tools = Tools(clock=clock, random=random, behaviour=behaviour, runner_for=self._runner_now)

    def start(self) -> None:
        """Begin to work."""
        self._unsubscribe = self._state.subscribe("pods", self._changed)

    def stop(self) -> None:
        """Kill every container and do nothing more."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        for call in self._calls:
            if call.active():
                call.cancel()
        for life in self._lives.values():
            life.vanish()
        self._lives.clear()
        self._crashing.stop()
        self._never_ready.stop()

    def resync(self) -> None:
        """Show anew how every pod is: the state may say something else of it."""
        for life in list(self._lives.values()):
            life.resync()

    def _runner_now(self) -> PodRunner:
        failure = self._behaviour.failure
        if failure is FailureMode.CRASH:
            return self._crashing
        return self._never_ready if failure is FailureMode.NEVERREADY else self._runner

    def _changed(self, change: Change) -> None:
        pod, uid = change.object, change.object["metadata"]["uid"]
        if change.type == "ADDED":
            record = PodRecord(pod, self._state, now=self._now, events=self._events)
            self._lives[uid] = PodLife(pod, record, self._tools)
        if change.type == "DELETED":
            self._soon(self._gone, pod)
        elif "deletionTimestamp" in pod["metadata"]:
            self._soon(self._stop_pod, pod)

    def _soon(self, function: Callable[[Object], None], pod: Object) -> None:
        self._calls = [call for call in self._calls if call.active()]
        self._calls.append(self._clock.callLater(0, function, pod))

    def _stop_pod(self, pod: Object) -> None:
        life = self._lives.get(pod["metadata"]["uid"])
        if life is not None:
            life.stop(pod["metadata"]["deletionGracePeriodSeconds"])

    def _gone(self, pod: Object) -> None:
        life = self._lives.pop(pod["metadata"]["uid"], None)
        if life is not None:
            life.vanish()
