"""
The life of one pod, from its creation to its removal, as the scheduler and a kubelet lead it.

States (:class:`Stage`) and who moves them: the clock for scheduling, creating, pulling and backing off;
the runner's container for readiness and exits; the API, through :meth:`PodLife.stop` and
:meth:`PodLife.vanish`, for the end. What is shown of it is :mod:`~bkscaler.sandbox.podrecord`'s.

::

    UNBOUND -> CREATING -> RUNNING <-> CRASHED -> BACKOFF -> RUNNING
                  |-> PULLING
    any of them -> STOPPING -> ENDED
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from bkscaler.backoff import Backoff
from bkscaler.sandbox.objects import Object, Random, random_hex
from bkscaler.sandbox.podrecord import PodRecord
from bkscaler.sandbox.pods import Behaviour, Container, FailureMode, PodProcess, PodRunner

SCHEDULE_S = 0.009
"""Seconds from a pod's creation to its binding."""

RESCHEDULE_S = 5.0
"""Seconds between two looks at a pod that fitted nowhere."""

CREATE_S = 0.014
"""Seconds from a pod's binding to its first status."""

ERROR_SHOWN_S = 1.0
"""Seconds a crashed container is shown as terminated before it is shown as backing off."""

PULL_ERROR_SHOWN_S = 2.0
"""Seconds a failed pull is shown before it is shown as backing off."""

REMOVE_S = 0.020
"""Seconds from a pod's last status to its removal; the controller's view of it falls in between."""

RETRY = Backoff(first_s=3.0, limit_s=60.0, jitter=0.0)
"""Delay before a restart or another pull; a real kubelet begins with 10 s and goes up to 5 min."""


class Stage(Enum):
    """Where a pod is in its life."""

    UNBOUND = "unbound"
    CREATING = "creating"
    PULLING = "pulling"
    RUNNING = "running"
    CRASHED = "crashed"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Tools:
    """
    What every pod's life needs; shared by all lives of one kubelet.

    :param runner_for: gives the runner for a container that is to be started now.
    """

    clock: IReactorTime
    random: Random
    behaviour: Behaviour
    runner_for: Callable[[], PodRunner]


class PodLife:
    """
    One pod. Lives from its creation until it has :attr:`Stage.ENDED`; owns its container and its timers.

    :param pod: the pod as it was created, or restored: then it is bound to the node already, perhaps.
    :param record: the same pod in the state.
    """

    def __init__(self, pod: Object, record: PodRecord, tools: Tools) -> None:
        self._record = record
        self._tools = tools
        self._port = _port(pod)
        self._stage = Stage.UNBOUND
        self._container: Container | None = None
        self._failures = 0
        self._grace_s = math.inf
        self._timers: list[IDelayedCall] = []
        if pod["spec"].get("nodeName"):
            self._bound()
        else:
            self._after(SCHEDULE_S, self._schedule)

    def __repr__(self) -> str:
        return f"<PodLife {self._record} {self._stage.value}>"

    def stop(self, grace_s: float) -> None:
        """
        Begin to end: the pod has got a deletionTimestamp. When it is ending already, a shorter grace counts.

        Must be called from the clock, not from within a notification of the state, as it writes.
        """
        if self._stage is Stage.ENDED or grace_s >= self._grace_s:
            return
        self._grace_s = grace_s
        if self._stage is Stage.STOPPING:
            self._after(grace_s, self._kill)
            return
        self._record.say_killing()
        self._cancel_timers()
        self._stage = Stage.STOPPING
        self._after(min(self._tools.behaviour.stop_delay_s, grace_s), self._terminate)
        self._after(grace_s, self._kill)

    def vanish(self) -> None:
        """Give up everything: the pod is gone from the state, or the kubelet stops. May come twice."""
        self._cancel_timers()
        self._stage = Stage.ENDED
        self._kill()

    def resync(self) -> None:
        """Write down again how the pod is. Must be called from the clock, as :meth:`stop`."""
        if self._stage not in (Stage.UNBOUND, Stage.ENDED):
            self._record.resync()

    def readiness_changed(self, ready: bool) -> None:
        """Hear from the container; taken while running and while stopping, ignored elsewhere."""
        if self._stage in (Stage.RUNNING, Stage.STOPPING):
            self._record.show(ready=ready)

    def exited(self, code: int) -> None:
        """Hear that the container has ended: a crash while running, the end while stopping."""
        self._container = None
        if self._stage is Stage.STOPPING:
            self._finish(code)
        elif self._stage is Stage.RUNNING:
            self._stage = Stage.CRASHED
            self._record.show_crashed(code)
            self._after(ERROR_SHOWN_S, self._back_off)

    def _after(self, seconds: float, function: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.active()]
        self._timers.append(self._tools.clock.callLater(seconds, function))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()

    def _retry(self, function: Callable[[], None]) -> float:
        """Do something after a delay that grows with the failures; give the delay."""
        self._failures += 1
        delay_s = RETRY.delay_s(self._failures, self._tools.random)
        self._after(delay_s, function)
        return delay_s

    def _schedule(self) -> None:
        if self._tools.behaviour.failure is FailureMode.UNSCHEDULABLE:
            self._record.show_unschedulable()
            self._after(RESCHEDULE_S, self._schedule)
            return
        self._record.bind()
        self._bound()

    def _bound(self) -> None:
        self._stage = Stage.CREATING
        self._after(CREATE_S, self._create)

    def _create(self) -> None:
        self._record.show()
        self._after(self._tools.behaviour.start_delay_s, self._begin)

    def _begin(self) -> None:
        if not self._record.facts.ip:
            self._record.note(ip=self._tools.runner_for().new_address())
        if self._tools.behaviour.failure is FailureMode.IMAGEPULL:
            self._stage = Stage.PULLING
            self._record.show_pull_failed()
            self._after(PULL_ERROR_SHOWN_S, self._back_off_pull)
        else:
            self._run()

    def _back_off_pull(self) -> None:
        self._record.show_pull_backing_off()
        self._retry(self._begin)

    def _run(self) -> None:
        """Start the container."""
        self._stage = Stage.RUNNING
        record = self._record
        record.show_started(f"containerd://{random_hex(self._tools.random, 64)}")
        process = PodProcess(name=record.name, uid=record.uid, ip=record.facts.ip, port=self._port)
        container = self._tools.runner_for().start(process, self)
        if self._stage is Stage.RUNNING:
            self._container = container

    def _back_off(self) -> None:
        self._stage = Stage.BACKOFF
        self._record.show_backing_off(self._retry(self._restart))

    def _restart(self) -> None:
        self._record.note(restarts=self._record.facts.restarts + 1)
        self._run()

    def _terminate(self) -> None:
        if self._container is not None:
            self._container.terminate()
        elif self._record.has_run:
            self._finish(0)
        else:
            self._remove()

    def _kill(self) -> None:
        if self._container is not None:
            self._container.kill()

    def _finish(self, code: int) -> None:
        """Show the container's end, then remove the pod."""
        self._cancel_timers()
        self._record.show_ended(code)
        self._after(REMOVE_S, self._remove)

    def _remove(self) -> None:
        self._cancel_timers()
        self._stage = Stage.ENDED
        self._record.remove()


def _port(pod: Object) -> int:
    ports = pod["spec"]["containers"][0].get("ports") or [{}]
    return int(ports[0].get("containerPort", 0))
