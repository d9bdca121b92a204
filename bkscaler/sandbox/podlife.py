"""
The life of one pod, from its creation to its removal, as the scheduler and a kubelet lead it.

States (:class:`Stage`) and who moves them: the clock for scheduling, creating, pulling and backing off;
the runner's container for readiness and exits; the API, through :meth:`PodLife.stop` and
:meth:`PodLife.vanish`, for the end. Every write checks that the pod of this uid is still there.

::

    UNBOUND -> CREATING -> RUNNING <-> CRASHED -> BACKOFF -> RUNNING
                  |-> PULLING
    any of them -> STOPPING -> ENDED
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from bkscaler.backoff import Backoff
from bkscaler.sandbox.deletion import delete_pod
from bkscaler.sandbox.eventlog import EventLog
from bkscaler.sandbox.objects import Now, Object, Random, dig, random_hex, stamp
from bkscaler.sandbox.pods import Behaviour, Container, FailureMode, PodProcess, PodRunner
from bkscaler.sandbox.podstatus import (
    UNSCHEDULABLE,
    ContainerFacts,
    bind,
    container_name,
    image_of,
    mark_unschedulable,
    show_alive,
    show_ended,
)
from bkscaler.sandbox.state import State

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
    """What every pod's life needs; shared by all lives of one kubelet."""

    state: State
    clock: IReactorTime
    now: Now
    random: Random
    events: EventLog
    behaviour: Behaviour
    runner_for: Callable[[], PodRunner]


def _pull_error(image: str) -> str:
    return (
        f'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": failed to resolve '
        f'reference "{image}": {image}: not found'
    )


class PodLife:
    """
    One pod. Lives from its creation until it has :attr:`Stage.ENDED`; owns its container and its timers.

    :param pod: the pod as it was created.
    """

    def __init__(self, pod: Object, tools: Tools) -> None:
        self._tools = tools
        self._namespace: str = pod["metadata"]["namespace"]
        self._name: str = pod["metadata"]["name"]
        self._uid: str = pod["metadata"]["uid"]
        self._stage = Stage.UNBOUND
        self._facts = ContainerFacts(state={"waiting": {"reason": "ContainerCreating"}})
        self._container: Container | None = None
        self._started = ""
        self._failures = 0
        self._timers: list[IDelayedCall] = []
        self._after(SCHEDULE_S, self._schedule)

    def __repr__(self) -> str:
        return f"<PodLife {self._namespace}/{self._name} {self._stage.value}>"

    @property
    def stage(self) -> Stage:
        """Where the pod is now."""
        return self._stage

    def stop(self, grace_s: float) -> None:
        """
        Begin to end: the pod has got a deletionTimestamp. Ignored when it is ending already.

        Must be called from the clock, not from within a notification of the state, as it writes.
        """
        if self._stage in (Stage.STOPPING, Stage.ENDED):
            return
        pod = self._pod()
        if pod is not None and self._facts.container_id:
            self._say(pod, "Killing", f"Stopping container {container_name(pod)}")
        self._cancel_timers()
        self._stage = Stage.STOPPING
        self._after(min(self._tools.behaviour.stop_delay_s, grace_s), self._terminate)
        self._after(grace_s, self._kill)

    def vanish(self) -> None:
        """Give up everything: the pod is gone from the state, or the kubelet stops. May come twice."""
        self._cancel_timers()
        self._stage = Stage.ENDED
        self._kill()

    def readiness_changed(self, ready: bool) -> None:
        """Hear from the container; taken while running and while stopping, ignored elsewhere."""
        if self._stage in (Stage.RUNNING, Stage.STOPPING):
            self._show(ready=ready)

    def exited(self, code: int) -> None:
        """Hear that the container has ended: a crash while running, the end while stopping."""
        self._container = None
        if self._stage is Stage.STOPPING:
            self._finish(code)
        elif self._stage is Stage.RUNNING:
            self._crashed(code)

    def _after(self, seconds: float, function: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.active()]
        self._timers.append(self._tools.clock.callLater(seconds, function))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()

    def _pod(self) -> Object | None:
        """Give the pod as it is now, or None when it or its uid is gone."""
        pod = self._tools.state.get("pods", self._namespace, self._name)
        return pod if pod is not None and pod["metadata"]["uid"] == self._uid else None

    def _show(self, **changes: object) -> None:
        """Change what is known of the container, and write the status that follows."""
        self._facts = replace(self._facts, **changes)  # type: ignore[arg-type]  # names are the fields'
        pod = self._pod()
        if pod is not None:
            show_alive(pod, self._tools.now(), self._facts)
            self._tools.state.put("pods", pod)

    def _say(self, pod: Object, reason: str, message: str, *, warning: bool = False) -> None:
        container = container_name(pod)
        self._tools.events.kubelet(pod, reason, message, container=container, warning=warning)

    def _schedule(self) -> None:
        pod = self._pod()
        if pod is None:
            return
        events, now = self._tools.events, self._tools.now()
        if self._tools.behaviour.failure is FailureMode.UNSCHEDULABLE:
            if not dig(pod, "status", "conditions"):
                mark_unschedulable(pod, now)
                pod = self._tools.state.put("pods", pod)
                events.scheduler(pod, "FailedScheduling", UNSCHEDULABLE, warning=True)
            self._after(RESCHEDULE_S, self._schedule)
            return
        bind(pod, now)
        pod = self._tools.state.put("pods", pod)
        node = pod["spec"]["nodeName"]
        events.scheduler(pod, "Scheduled", f"Successfully assigned {self._namespace}/{self._name} to {node}")
        self._stage = Stage.CREATING
        self._after(CREATE_S, self._create)

    def _create(self) -> None:
        self._show()
        self._after(self._tools.behaviour.start_delay_s, self._begin)

    def _begin(self) -> None:
        if not self._facts.ip:
            self._facts = replace(self._facts, ip=self._tools.runner_for().new_address())
        if self._tools.behaviour.failure is FailureMode.IMAGEPULL:
            self._pull()
        else:
            self._run()

    def _pull(self) -> None:
        """Fail to pull the image."""
        pod = self._pod()
        if pod is None:
            return
        self._stage = Stage.PULLING
        image, error = image_of(pod), _pull_error(image_of(pod))
        self._say(pod, "Pulling", f'Pulling image "{image}"')
        self._say(pod, "Failed", f'Failed to pull image "{image}": {error}', warning=True)
        self._say(pod, "Failed", "Error: ErrImagePull", warning=True)
        self._show(state={"waiting": {"reason": "ErrImagePull", "message": error}})
        self._after(PULL_ERROR_SHOWN_S, self._back_off_pull)

    def _back_off_pull(self) -> None:
        pod = self._pod()
        if pod is None:
            return
        self._failures += 1
        image, error = image_of(pod), _pull_error(image_of(pod))
        self._say(pod, "BackOff", f'Back-off pulling image "{image}"')
        self._say(pod, "Failed", "Error: ImagePullBackOff", warning=True)
        message = f'Back-off pulling image "{image}": ErrImagePull: {error}'
        self._show(state={"waiting": {"reason": "ImagePullBackOff", "message": message}})
        self._after(RETRY.delay_s(self._failures, self._tools.random), self._begin)

    def _run(self) -> None:
        """Start the container."""
        pod = self._pod()
        if pod is None:
            return
        self._say(pod, "Pulled", f'Container image "{image_of(pod)}" already present on machine')
        self._say(pod, "Created", "Container created")
        self._say(pod, "Started", "Container started")
        self._stage = Stage.RUNNING
        self._started = stamp(self._tools.now())
        container_id = f"containerd://{random_hex(self._tools.random, 64)}"
        self._show(state={"running": {"startedAt": self._started}}, container_id=container_id)
        process = PodProcess(name=self._name, uid=self._uid, ip=self._facts.ip, port=_port(pod))
        container = self._tools.runner_for().start(process, self)
        if self._stage is Stage.RUNNING:
            self._container = container

    def _terminated(self, code: int) -> Object:
        state: Object = {"exitCode": code, "reason": "Error" if code else "Completed"}
        state.update(startedAt=self._started, finishedAt=stamp(self._tools.now()))
        state["containerID"] = self._facts.container_id
        return {"terminated": state}

    def _crashed(self, code: int) -> None:
        self._stage = Stage.CRASHED
        self._show(state=self._terminated(code), ready=False)
        self._after(ERROR_SHOWN_S, self._back_off)

    def _back_off(self) -> None:
        pod = self._pod()
        if pod is None:
            return
        self._stage = Stage.BACKOFF
        self._failures += 1
        delay_s = RETRY.delay_s(self._failures, self._tools.random)
        where = f"{self._name}_{self._namespace}({self._uid})"
        container = container_name(pod)
        message = f"Back-off restarting failed container {container} in pod {where}"
        self._say(pod, "BackOff", message, warning=True)
        message = f"back-off {delay_s:.0f}s restarting failed container={container} pod={where}"
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        self._show(state=waiting, last_state=self._facts.state)
        self._after(delay_s, self._restart)

    def _restart(self) -> None:
        self._facts = replace(self._facts, restarts=self._facts.restarts + 1)
        self._run()

    def _terminate(self) -> None:
        if self._container is not None:
            self._container.terminate()
        elif self._facts.container_id:
            self._finish(0)
        else:
            self._remove()

    def _kill(self) -> None:
        if self._container is not None:
            self._container.kill()

    def _finish(self, code: int) -> None:
        """Show the container's end, then remove the pod."""
        self._cancel_timers()
        self._facts = replace(self._facts, state=self._terminated(code), last_state={}, ready=False)
        pod = self._pod()
        if pod is not None:
            show_ended(pod, self._tools.now(), self._facts, code)
            self._tools.state.put("pods", pod)
        self._after(REMOVE_S, self._remove)

    def _remove(self) -> None:
        self._cancel_timers()
        self._stage = Stage.ENDED
        pod = self._pod()
        if pod is not None:
            delete_pod(self._tools.state, pod, self._tools.now(), 0)


def _port(pod: Object) -> int:
    ports = pod["spec"]["containers"][0].get("ports") or [{}]
    return int(ports[0].get("containerPort", 0))
