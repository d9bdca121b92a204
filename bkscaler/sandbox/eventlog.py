"""Events that the sandbox's own scheduler, kubelet and controller write, in the recorded forms."""

from __future__ import annotations

from collections import deque

from bkscaler.sandbox.manifests import NODE
from bkscaler.sandbox.objects import Now, Object, Random, make_uid, micro_stamp, stamp
from bkscaler.sandbox.state import State

EVENT_LIMIT = 500
"""How many of the sandbox's own Events are kept; a real server forgets them after an hour."""

_NANOS = 1_000_000_000


class EventLog:
    """
    Writes Events to the state, the oldest leaving first.

    :param now: wall clock for their stamps.
    :param random: for their uids.
    """

    def __init__(self, state: State, *, now: Now, random: Random) -> None:
        self._state = state
        self._now = now
        self._random = random
        self._names: deque[tuple[str, str]] = deque()
        self._count = 0

    def scheduler(self, pod: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Write an Event of the scheduler about a pod."""
        event = self._begin(pod, reason, message, warning)
        event.update(source={}, firstTimestamp=None, lastTimestamp=None)
        event["eventTime"] = micro_stamp(self._now())
        event["action"] = "Scheduling" if warning else "Binding"
        event.update(reportingComponent="default-scheduler", reportingInstance="default-scheduler-sandbox")
        self._write(event)

    def kubelet(
        self, pod: Object, reason: str, message: str, *, container: str, warning: bool = False
    ) -> None:
        """Write an Event of the kubelet about a container of a pod."""
        event = self._begin(pod, reason, message, warning)
        event["involvedObject"]["fieldPath"] = f"spec.containers{{{container}}}"
        self._classic(event, "kubelet", NODE)
        self._write(event)

    def controller(self, owner: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Write an Event of the StatefulSet controller about a set."""
        event = self._begin(owner, reason, message, warning)
        self._classic(event, "statefulset-controller", "")
        self._write(event)

    def _classic(self, event: Object, component: str, host: str) -> None:
        """Fill in the fields of a core Event."""
        event["source"] = {"component": component, **({"host": host} if host else {})}
        now = stamp(self._now())
        event.update(firstTimestamp=now, lastTimestamp=now, count=1, eventTime=None)
        event.update(reportingComponent=component, reportingInstance=host)

    def _begin(self, about: Object, reason: str, message: str, warning: bool) -> Object:
        meta, now = about["metadata"], self._now()
        self._count += 1
        number = int(now.timestamp()) * _NANOS + now.microsecond * 1000 + self._count % 1000
        involved = {"kind": about["kind"], "namespace": meta["namespace"], "name": meta["name"]}
        involved.update(uid=meta["uid"], apiVersion=about["apiVersion"])
        involved["resourceVersion"] = meta["resourceVersion"]
        event_meta = {"name": f"{meta['name']}.{number:x}", "namespace": meta["namespace"]}
        event_meta.update(uid=make_uid(self._random), creationTimestamp=stamp(now))
        event: Object = {"kind": "Event", "apiVersion": "v1", "metadata": event_meta}
        event.update(involvedObject=involved, reason=reason, message=message)
        event["type"] = "Warning" if warning else "Normal"
        return event

    def _write(self, event: Object) -> None:
        meta = event["metadata"]
        self._state.put("events", event)
        self._names.append((meta["namespace"], meta["name"]))
        if len(self._names) > EVENT_LIMIT:
            self._state.remove("events", *self._names.popleft())
