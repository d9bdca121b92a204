"""
One pod as it stands in the state: read, its status written, and what is said about it in Events.

Every read and write checks that the pod of this uid is still there; a successor of the same name is never
touched. Nothing here waits.
"""

from __future__ import annotations

from dataclasses import replace

from bkscaler.sandbox.deletion import delete_pod
from bkscaler.sandbox.eventlog import EventLog
from bkscaler.sandbox.objects import Now, Object, clone, dig, stamp
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


class PodRecord:
    """
    The record of one pod; lives as long as its life is led.

    :param pod: the pod as it was created.
    :param now: wall clock for stamps.
    :param events: where Events are written.
    :ivar facts: what is known of the container.
    :ivar name: the pod's name, ``namespace`` and ``uid`` likewise.
    """

    def __init__(self, pod: Object, state: State, *, now: Now, events: EventLog) -> None:
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.uid: str = pod["metadata"]["uid"]
        self.facts = ContainerFacts(state={"waiting": {"reason": "ContainerCreating"}})
        self._started = ""
        self._container = container_name(pod)
        self._image = image_of(pod)
        self._state = state
        self._now = now
        self._events = events

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def has_run(self) -> bool:
        """Whether a container has ever been started."""
        return bool(self.facts.container_id)

    def read(self) -> Object | None:
        """Give a copy of the pod as it is now, or None when it or its uid is gone."""
        pod = self._peek()
        return None if pod is None else clone(pod)

    def _peek(self) -> Object | None:
        """Give the pod as it is stored. Read only."""
        pod = self._state.peek("pods", self.namespace, self.name)
        return pod if pod is not None and pod["metadata"]["uid"] == self.uid else None

    def note(self, **changes: object) -> None:
        """Change what is known of the container, and show nothing of it yet."""
        self.facts = replace(self.facts, **changes)  # type: ignore[arg-type]  # names are the fields'

    def show(self, **changes: object) -> None:
        """Change what is known of the container, and write the status that follows."""
        self.note(**changes)
        pod = self.read()
        if pod is not None:
            show_alive(pod, self._now(), self.facts)
            self._state.put("pods", pod)

    def resync(self) -> None:
        """Write the status that follows from what is known, and bind the pod if it no longer is."""
        pod = self._peek()
        if pod is not None and not pod["spec"].get("nodeName"):
            self.bind()
        self.show()

    def show_started(self, container_id: str) -> None:
        """Say and show that a container has been started."""
        self.say("Pulled", f'Container image "{self._image}" already present on machine')
        self.say("Created", "Container created")
        self.say("Started", "Container started")
        self._started = stamp(self._now())
        self.show(state={"running": {"startedAt": self._started}}, container_id=container_id)

    def show_crashed(self, code: int) -> None:
        """Show that the container has ended by itself."""
        self.show(state=self._terminated(code), ready=False)

    def show_backing_off(self, delay_s: float) -> None:
        """Say and show that the container is started again only after a delay."""
        where = f"{self.name}_{self.namespace}({self.uid})"
        message = f"Back-off restarting failed container {self._container} in pod {where}"
        self.say("BackOff", message, warning=True)
        message = f"back-off {delay_s:.0f}s restarting failed container={self._container} pod={where}"
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        self.show(state=waiting, last_state=self.facts.state)

    def show_pull_failed(self) -> None:
        """Say and show that the image cannot be pulled."""
        error = self._pull_error()
        self.say("Pulling", f'Pulling image "{self._image}"')
        self.say("Failed", f'Failed to pull image "{self._image}": {error}', warning=True)
        self.say("Failed", "Error: ErrImagePull", warning=True)
        self.show(state={"waiting": {"reason": "ErrImagePull", "message": error}})

    def show_pull_backing_off(self) -> None:
        """Say and show that the image is pulled again only after a delay."""
        self.say("BackOff", f'Back-off pulling image "{self._image}"')
        self.say("Failed", "Error: ImagePullBackOff", warning=True)
        message = f'Back-off pulling image "{self._image}": ErrImagePull: {self._pull_error()}'
        self.show(state={"waiting": {"reason": "ImagePullBackOff", "message": message}})

    def show_ended(self, code: int) -> None:
        """Show that the last container has ended."""
        self.note(state=self._terminated(code), last_state={}, ready=False)
        pod = self.read()
        if pod is not None:
            show_ended(pod, self._now(), self.facts, code)
            self._state.put("pods", pod)

    def show_unschedulable(self) -> None:
        """Say and show, once, that the pod fits on no node."""
        pod = self.read()
        if pod is not None and not dig(pod, "status", "conditions"):
            mark_unschedulable(pod, self._now())
            pod = self._state.put("pods", pod)
            self._events.scheduler(pod, "FailedScheduling", UNSCHEDULABLE, warning=True)

    def bind(self) -> None:
        """Bind the pod to the node, and say so."""
        pod = self.read()
        if pod is not None:
            bind(pod, self._now())
            pod = self._state.put("pods", pod)
            message = f"Successfully assigned {self} to {pod['spec']['nodeName']}"
            self._events.scheduler(pod, "Scheduled", message)

    def remove(self) -> None:
        """Remove the pod from the state."""
        pod = self._peek()
        if pod is not None:
            delete_pod(self._state, pod, self._now(), 0)

    def say(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Write an Event of the kubelet, unless the pod is gone."""
        pod = self._peek()
        if pod is not None:
            self._events.kubelet(pod, reason, message, container=self._container, warning=warning)

    def say_killing(self) -> None:
        """Say that the container is being stopped, when one has ever run."""
        if self.has_run:
            self.say("Killing", f"Stopping container {self._container}")

    def _terminated(self, code: int) -> Object:
        state: Object = {"exitCode": code, "reason": "Error" if code else "Completed"}
        state.update(startedAt=self._started, finishedAt=stamp(self._now()))
        state["containerID"] = self.facts.container_id
        return {"terminated": state}

    def _pull_error(self) -> str:
        return (
            f'rpc error: code = NotFound desc = failed to pull and unpack image "{self._image}": failed to '
            f'resolve reference "{self._image}": {self._image}: not found'
        )
