"""
That bkscaler goes by the newest that it has been told: of the set, and of the pods that it would give away.

Whatever tells (a watch, a list, the answer to a scale request), and in whatever order: a picture that is
older than what has come makes clients wait, or sends them to a pod that is gone, if only for a moment that
no dial falls into. Imported by :mod:`bkscaler.simulation.judge`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from bkscaler.sandbox.podstatus import is_ready
from bkscaler.services import Kubernetes
from bkscaler.simulation.process import Process

Line = dict[str, Any]
HEADS = (b'{"type":"', b'{"kind":"Scale"', b'{"kind":"StatefulSet', b'{"kind":"Pod')
"""How what tells of the set and its pods begins."""


class Told(NamedTuple):
    """
    What was told last of the set.

    :param version: of the set, or of the list that does not have it, or of its deletion.
    :param replicas: None when there is no set.
    """

    version: int
    replicas: int | None


class Knowing:
    """
    Compares what one process after the other makes of what it is told.

    :param judge: whom failures are told, and who knows the world.
    """

    def __init__(self, judge: Any) -> None:
        self._judge = judge
        self._process: Process | None = None
        self._set = Told(0, None)
        self._pods: dict[str, tuple[int, bool]] = {}

    def told(self, process: Process, data: bytes) -> None:
        """Take note of what the API server tells a process, which has made something of what came before."""
        if process is not self._process:
            self.restored()
            self._process = process
        self.look()
        if data.startswith(b"HTTP/1.1 5"):
            return
        for line in _lines(data):
            kind = line.get("kind") or line.get("object", {}).get("kind", "")
            if kind in {"Scale", "StatefulSet", "StatefulSetList"}:
                self._told_of_set(line)
            elif kind in {"Pod", "PodList"}:
                self._told_of_pods(line)

    def restored(self) -> None:
        """Forget what was told: a server that has gone back counts anew, and nobody knows anything of it."""
        self._set = Told(0, None)
        self._pods = {}

    def look(self) -> None:
        """Compare. What was told a moment ago must have been taken in."""
        process = self._process
        if process is None or not process.alive or process.draining or not self._set.version:
            return
        view = next(each for each in process.service.services if isinstance(each, Kubernetes)).view
        known, told = view.stateful_set, self._set
        version = told.version if known is None else int(known.resource_version)
        replicas = None if known is None else known.replicas
        if version < told.version or (version == told.version and replicas != told.replicas):
            self._judge.fail(f"goes by {replicas} replicas of version {version}, although it was told {told}")
        ready = () if view.observation is None else view.observation.ready
        for replica in ready:
            if not self._pods.get(replica.uid, (0, True))[1]:
                self._judge.fail(f"goes by {replica}, although it was told that it is not to be used")

    def _told_of_set(self, line: Line) -> None:
        """Keep the newest, whatever it came with."""
        items = line.get("items", [line.get("object", line)])
        gone = line.get("type") == "DELETED" or not items
        meta = (items[0] if items else line)["metadata"]
        replicas = None if gone else int(items[0]["spec"].get("replicas", 0))
        told = Told(int(meta["resourceVersion"]), replicas)
        if told.version >= self._set.version:
            self._set = told

    def _told_of_pods(self, line: Line) -> None:
        """Keep the newest of each pod: its version, and whether it may be used."""
        asks = self._judge.world.settings.readiness != "pod"
        for pod in line.get("items", [line.get("object", line)]):
            meta = pod["metadata"]
            gone = line.get("type") == "DELETED" or "deletionTimestamp" in meta
            fit, version = not gone and (asks or is_ready(pod)), int(meta["resourceVersion"])
            if "uid" in meta and version > self._pods.get(meta["uid"], (0, True))[0]:
                self._pods[meta["uid"]] = version, fit


def _lines(data: bytes) -> Iterator[Line]:
    """Read the objects in what one read has brought; lines that are not whole say nothing."""
    for line in data.split(b"\n"):
        if line.startswith(HEADS):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if value.get("type") not in {"BOOKMARK", "ERROR"}:
                yield value
