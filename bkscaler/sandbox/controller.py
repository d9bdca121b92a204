"""
The StatefulSet controller, on a passed-in clock, with the recorded delays.

It hears of every change, and a little later looks at the set and its pods, acts, and a little later still
writes the status *of what it had seen*: that is why ``observedGeneration`` moves before the counts do.
One set is worked on by one step at a time.

It may be made to lag in two ways: what it looks at is behind (:mod:`bkscaler.sandbox.informer`), or it is
slow to look, and then sees what is so.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from bkscaler.sandbox.deletion import delete_pod
from bkscaler.sandbox.eventlog import EventLog
from bkscaler.sandbox.informer import Informer
from bkscaler.sandbox.objects import Now, Object, Random, make_uid, stamp
from bkscaler.sandbox.plan import SetPlan, plan_set
from bkscaler.sandbox.podstatus import new_pod
from bkscaler.sandbox.state import Change, State

SYNC_S = 0.008
"""Seconds from a change to the step that follows from it."""

AGAIN_S = 0.002
"""Seconds from one step's end to the next, when something changed in between."""

ACTED_S = 0.015
"""Seconds from a step that created or deleted pods to its status."""

QUIET_S = 0.005
"""Seconds from a step that did nothing to its status."""

COLLECT_S = 0.025
"""Seconds from a set's deletion to the deletion of its pods."""

_Key = tuple[str, str]


def ordinal_of(pod: Object) -> int | None:
    """Give a pod's ordinal by its name, or None when the name has none."""
    text = pod["metadata"]["name"].rpartition("-")[2]
    return int(text) if text.isdigit() else None


def owner_of(pod: Object) -> Object:
    """Give the reference to the StatefulSet that controls a pod, or ``{}``."""
    for reference in pod["metadata"].get("ownerReferences") or []:
        if reference.get("controller") and reference.get("kind") == "StatefulSet":
            return dict(reference)
    return {}


class StatefulSetController:
    """
    Keeps the pods of every StatefulSet as its spec says. Works from :meth:`start` to :meth:`stop`.

    :param events: where it says what it did.
    :ivar cache: what it knows; may be made to be behind.
    :ivar slow_s: by how many seconds each step is later than usual, >= 0; what waits already stays as it is.
    :ivar on_step: told the set, as it was seen, by each step that has acted on it.
    """

    def __init__(
        self, state: State, *, clock: IReactorTime, now: Now, random: Random, events: EventLog
    ) -> None:
        self._state = state
        self._clock = clock
        self._now = now
        self._random = random
        self._events = events
        self._steps: dict[_Key, IDelayedCall] = {}
        self._writing: set[_Key] = set()
        self._again: set[_Key] = set()
        self._others: list[IDelayedCall] = []
        self.cache = Informer(state, clock, {"statefulsets": self._set_changed, "pods": self._pod_changed})
        self.slow_s = 0.0
        self._slow_until_s = 0.0
        self.on_step: Callable[[Object], None] = lambda owner: None

    @property
    def is_behind(self) -> bool:
        """Whether it lags, and there is something that it has yet to see or to act on."""
        return self.cache.is_behind or self._clock.seconds() < self._slow_until_s

    def start(self) -> None:
        """Begin to work, on what is there already too."""
        self.cache.start()
        for owner in self.cache.peek_all("statefulsets"):
            self._enqueue(_key(owner))

    def stop(self) -> None:
        """Do nothing more; pending steps are dropped."""
        self.cache.stop()
        for call in (*self._steps.values(), *self._others):
            if call.active():
                call.cancel()
        self._steps.clear()

    def restart(self) -> None:
        """Forget what was about to be done, and look at everything anew."""
        for call in self._steps.values():
            call.cancel()
        self._steps.clear()
        self._writing.clear()
        self._again.clear()
        self.cache.restart()
        for owner in self.cache.peek_all("statefulsets"):
            self._enqueue(_key(owner))

    def _set_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            self._later(COLLECT_S, self._collect, change.object["metadata"])
        else:
            self._enqueue(_key(change.object))

    def _pod_changed(self, change: Change) -> None:
        name = owner_of(change.object).get("name")
        if name:
            self._enqueue((change.object["metadata"]["namespace"], name))

    def _later(self, seconds: float, function: Callable[[Object], None], argument: Object) -> None:
        self._others = [call for call in self._others if call.active()]
        self._others.append(self._clock.callLater(seconds, function, argument))

    def _enqueue(self, key: _Key, delay_s: float = SYNC_S) -> None:
        if key in self._writing:
            self._again.add(key)
        elif key not in self._steps:
            self._steps[key] = self._clock.callLater(delay_s + self.slow_s, self._step, key)
            if self.slow_s:
                self._slow_until_s = self._steps[key].getTime()

    def _pods_of(self, owner: Object) -> dict[int, Object]:
        pods: dict[int, Object] = {}
        for pod in self.cache.peek_all("pods", owner["metadata"]["namespace"]):
            ordinal = ordinal_of(pod)
            if ordinal is not None and owner_of(pod).get("uid") == owner["metadata"]["uid"]:
                pods[ordinal] = pod
        return dict(sorted(pods.items()))

    def _step(self, key: _Key) -> None:
        del self._steps[key]
        owner = self.cache.peek("statefulsets", *key)
        if owner is None:
            return
        plan = plan_set(owner, self._pods_of(owner))
        self._writing.add(key)
        self._act(owner, plan)
        self.on_step(owner)
        delay_s = ACTED_S if plan.create or plan.delete else QUIET_S
        self._steps[key] = self._clock.callLater(delay_s, self._write, key, owner, plan.status)

    def _act(self, owner: Object, plan: SetPlan) -> None:
        for ordinal in plan.create:
            self._create(owner, ordinal)
        for pod in plan.delete:
            self._delete(owner, pod["metadata"])

    def _create(self, owner: Object, ordinal: int) -> None:
        pod = new_pod(owner, ordinal)
        meta = pod["metadata"]
        if self._state.peek("pods", meta["namespace"], meta["name"]) is not None:
            return
        meta["uid"] = make_uid(self._random)
        meta["generation"] = 1
        meta["creationTimestamp"] = stamp(self._now())
        self._state.put("pods", pod)
        self._say(owner, "SuccessfulCreate", "Create", meta["name"])

    def _delete(self, owner: Object, seen: Object) -> None:
        """Delete the pod that was seen, unless it is going already, or gone."""
        pod = self._state.peek("pods", seen["namespace"], seen["name"])
        if pod is None or pod["metadata"]["uid"] != seen["uid"] or "deletionTimestamp" in pod["metadata"]:
            return
        delete_pod(self._state, pod, self._now())
        self._say(owner, "SuccessfulDelete", "Delete", seen["name"])

    def _say(self, owner: Object, reason: str, verb: str, pod_name: str) -> None:
        name = owner["metadata"]["name"]
        message = f"{verb} Pod {pod_name} in StatefulSet {name} successful"
        self._events.controller(owner, reason, message)

    def _write(self, key: _Key, seen: Object, status: Object) -> None:
        del self._steps[key]
        again = key in self._again
        now = self._state.peek("statefulsets", *key)
        if now is not None and now["metadata"]["uid"] == seen["metadata"]["uid"]:
            self._state.edit("statefulsets", *key, lambda owner: owner.update(status=status))
        # Our own write is no news: only what changed between the step and now asks for another one.
        self._again.discard(key)
        self._writing.discard(key)
        if again:
            self._enqueue(key, AGAIN_S)

    def _collect(self, owner: Object) -> None:
        """Delete the pods of a set that is gone."""
        for pod in self._state.peek_all("pods", owner["namespace"]):
            if owner_of(pod).get("uid") == owner["uid"]:
                delete_pod(self._state, pod, self._now())


def _key(owner: Object) -> _Key:
    return owner["metadata"]["namespace"], owner["metadata"]["name"]
