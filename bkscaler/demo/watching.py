"""
The cluster as a demo's audience sees it, through two watches of its own: bkscaler is not asked.

Imported by ``demo.stage``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from bkscaler.demo.timeline import Step, Timeline
from bkscaler.errors import ApiError
from bkscaler.kube import fields, pods, statefulset
from bkscaler.kube.auth import ClusterAccess
from bkscaler.kube.client import ApiClient
from bkscaler.kube.watch import Reflector

Change = Callable[[dict[str, Any], dict[str, Any]], None]
"""Told an object before and after a change; ``{}`` stands for "not there"."""


class Watched:
    """
    Turns what a :class:`~bkscaler.kube.watch.Reflector` hears into changes of single objects.

    :param on_change: told each change, the first list's objects included.
    """

    def __init__(self, on_change: Change) -> None:
        self._on_change = on_change
        self._known: dict[str, dict[str, Any]] = {}

    def on_listing(self) -> None:
        """Need nothing."""

    def on_list(self, items: list[dict[str, Any]], resource_version: str) -> None:
        """Compare with what was there before."""
        listed = {fields.text(item, "metadata", "uid"): item for item in items}
        for uid in [uid for uid in self._known if uid not in listed]:
            self._put(uid, {})
        for uid, item in listed.items():
            self._put(uid, item)

    def on_event(self, kind: str, content: dict[str, Any]) -> None:
        """Take one change in."""
        self._put(fields.text(content, "metadata", "uid"), {} if kind == "DELETED" else content)

    def on_settled(self) -> None:
        """Need nothing: each change has been told."""

    def on_state(self, ok: bool, error: ApiError | None) -> None:
        """Need nothing: the watch goes on by itself."""

    def _put(self, uid: str, content: dict[str, Any]) -> None:
        before = self._known.pop(uid, {})
        if content:
            self._known[uid] = content
        self._on_change(before, content)


class Audience:
    """
    Tells a timeline what becomes of the StatefulSet's replicas and of the pods. Start it once, then stop it.

    :param timeline: told.
    :param access: how to reach the cluster.
    :param namespace: of the StatefulSet.
    :param name: of the StatefulSet.
    :param reactor: connects and tells time.
    :param random: gives a number in [0, 1), for jitter.
    :ivar replicas: what the StatefulSet asks for; None until it has been seen.
    """

    def __init__(
        self,
        timeline: Timeline,
        *,
        access: ClusterAccess,
        namespace: str,
        name: str,
        reactor: Any,
        random: Callable[[], float],
    ) -> None:
        self.replicas: int | None = None
        self._timeline = timeline
        self._client = ApiClient.over_network(access=access, reactor=reactor)
        self._said = ""
        watches = {
            statefulset.collection_path(namespace): ({"fieldSelector": f"metadata.name={name}"}, self._set),
            pods.collection_path(namespace): ({}, self._pod),
        }
        self._reflectors = [
            Reflector(
                client=self._client,
                clock=reactor,
                random=random,
                path=path,
                selector=selector,
                what=path,
                listener=Watched(on_change),
            )
            for path, (selector, on_change) in watches.items()
        ]

    def start(self) -> None:
        """Begin to watch."""
        for reflector in self._reflectors:
            reflector.start()

    def stop(self) -> Deferred[None]:
        """End; fires when nothing is open."""
        ends = gatherResults([reflector.stop() for reflector in self._reflectors])
        return ends.addCallback(lambda _: self._client.close())

    def _set(self, _before: dict[str, Any], after: dict[str, Any]) -> None:
        """Tell of a change of ``spec.replicas``."""
        before, self.replicas = self.replicas, statefulset.parse(after).replicas
        if before is None or before == self.replicas:
            return
        if (before, self.replicas) == (0, 1):
            self._timeline.happened(Step.WOKEN)
        elif (before, self.replicas) == (1, 0):
            since = self._timeline.since(Step.LAST_GONE)
            self._timeline.happened(Step.ASLEEP, f"{since} after the last client left" if since else "")
        else:
            self._timeline.note(f"replicas {before} -> {self.replicas}")

    def _pod(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Tell of a pod that came, became ready, is going, or is gone."""
        was, now = pods.parse(before), pods.parse(after)
        name = now.name or was.name
        if not now.name:
            self._timeline.happened(Step.POD_GONE, name)
        elif now.ready and not was.ready:
            self._timeline.happened(Step.POD_READY, f"{name} at {now.ip}")
        elif (words := describe(now)) != self._said:
            self._said = words
            self._timeline.note(f"pod {name}: {words}")


def describe(pod: pods.PodView) -> str:
    """Say in a few words what a pod that is not ready is at."""
    if pod.terminating:
        return "terminating"
    if pod.unscheduled:
        return f"{pod.unscheduled}: {pod.unscheduled_message}"
    container = next(iter(pod.containers), pods.ContainerView())
    if container.running:
        return "started, not ready yet"
    if container.ended and not container.waiting_reason:
        return f"ended with code {container.exit_code}"
    return container.waiting_reason or pod.phase.lower()
