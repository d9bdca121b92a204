"""
Which pods a scale-down has condemned, and which of these bkscaler should not trust.

The controller carries out each generation of the set some time after it was written. From a scale-down on a
pod that is not asked for may be deleted at any moment, until the controller has looked at a later generation
that asks for it, and has left it alone. Nothing shows this in the pod itself. Whoever knows of that
scale-down, or of any later generation, cannot tell that the pod is spared before the controller has said so.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bkscaler.sandbox.controller import ordinal_of, owner_of
from bkscaler.sandbox.objects import Object
from bkscaler.sandbox.state import Change
from bkscaler.simulation.lines import Line


class Condemned:
    """
    Keeps account of the pods that are condemned.

    :param truth: knows how things stand, and who is changing them.
    :param cluster: whose pods they are.
    """

    def __init__(self, truth: Any, cluster: Any) -> None:
        self._truth = truth
        self._cache = cluster.controller.cache
        self._specs: defaultdict[str, list[Object]] = defaultdict(list)
        self._by: dict[str, Object] = {}
        self._ours: set[tuple[str, int]] = set()
        self._told: dict[str, int] = {}
        cluster.controller.on_step = self._looked_at
        cluster.state.subscribe("statefulsets", self._set_changed)
        cluster.state.subscribe("pods", self._pod_changed)

    def told(self, line: Line) -> None:
        """Take note of which generation the API server tells the process that runs."""
        for each in line.get("items", [line.get("object", line)]):
            meta = each["metadata"]
            if "generation" in meta and "replicas" in each.get("spec", {}):
                self._told[meta["uid"]] = max(self._told.get(meta["uid"], 0), meta["generation"])

    def started(self) -> None:
        """Take note that a process begins, which has been told nothing."""
        self._told.clear()

    def restored(self) -> None:
        """Forget all that was, and look at what there is now."""
        for memory in (self._specs, self._by, self._ours, self._told):
            memory.clear()
        owner = self._truth.stateful_set()
        if owner is not None:
            self._ask_for(owner)

    def is_known(self, uid: str) -> bool:
        """Whether a pod is condemned, and bkscaler did it, or has been told enough to doubt."""
        by = self._by.get(uid)
        if by is None:
            return False
        ours = (by["uid"], by["generation"]) in self._ours
        return ours or self._told.get(by["uid"], 0) >= by["generation"]

    def _set_changed(self, change: Change) -> None:
        """Take note of a new generation."""
        owner, before = change.object, change.previous
        if change.type == "DELETED" or (before and before["spec"] == owner["spec"]):
            return
        if self._truth.hand == "bkscaler":
            self._ours.add((owner["metadata"]["uid"], owner["metadata"]["generation"]))
        self._ask_for(owner)

    def _ask_for(self, owner: Object) -> None:
        """Condemn the pods that a generation does not ask for."""
        self._specs[owner["metadata"]["uid"]].append(owner)
        for pod in self._pods_of(owner):
            if not _wants(owner, pod):
                self._condemn(pod, owner)

    def _pod_changed(self, change: Change) -> None:
        """Condemn a pod at its birth, for a generation that the controller has yet to see."""
        if change.type != "ADDED":
            return
        for owner in self._specs[owner_of(change.object).get("uid", "")]:
            if owner["metadata"]["generation"] > self._seen(owner) and not _wants(owner, change.object):
                self._condemn(change.object, owner)

    def _condemn(self, pod: Object, owner: Object) -> None:
        self._by[pod["metadata"]["uid"]] = owner["metadata"]

    def _seen(self, owner: Object) -> int:
        """Give the generation of a set that the controller knows; 0 when it knows none."""
        meta = owner["metadata"]
        seen = self._cache.peek("statefulsets", meta["namespace"], meta["name"])
        same = seen is not None and seen["metadata"]["uid"] == meta["uid"]
        return int(seen["metadata"]["generation"]) if same else 0

    def _looked_at(self, owner: Object) -> None:
        """Spare the pods that the controller has left alone after a later generation."""
        for pod in self._pods_of(owner):
            meta = pod["metadata"]
            by = self._by.get(meta["uid"])
            if by is None or "deletionTimestamp" in meta or not _wants(owner, pod):
                continue
            if by["generation"] < owner["metadata"]["generation"]:
                del self._by[meta["uid"]]

    def _pods_of(self, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        return [pod for pod in self._truth.pods() if owner_of(pod).get("uid") == uid]


def _wants(owner: Object, pod: Object) -> bool:
    ordinal = ordinal_of(pod)
    return ordinal is not None and ordinal < owner["spec"].get("replicas", 1)
