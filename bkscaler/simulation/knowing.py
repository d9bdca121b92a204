"""
That bkscaler goes by the newest that it has been told: of the set, and of the pods that it would give away.

Whatever tells (a watch, a list, the answer to a scale request), and in whatever order: a picture that is
older than what has come makes clients wait, or sends them to a pod that is gone, if only for a moment that
no dial falls into. A watch that begins again goes on from where the last one was. Imported by
:mod:`bkscaler.simulation.judge`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bkscaler.sandbox.podstatus import is_ready
from bkscaler.services import Kubernetes
from bkscaler.simulation.lines import Line
from bkscaler.simulation.process import Process

NOTHING = (0, True, 0.0)
SETS = frozenset({"Scale", "StatefulSet", "StatefulSetList"})


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
        self.forget()
        judge.world.api.asking.on_watch = self._watch_begins

    def forget(self) -> None:
        """Forget what was told: a server that was restored counts anew, and a new process knows nothing."""
        self._set = Told(0, None)
        self._pods: dict[str, tuple[int, bool, float]] = {}
        self._watched = {True: 0, False: 0}

    def before(self, process: Process) -> None:
        """Compare, before a process is told more."""
        if process is not self._process:
            self.forget()
            self._process = process
        self.look()

    def look(self) -> None:
        """Compare. What has been told was taken in at once; what comes together is acted on together."""
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
            _, fit, told_s = self._pods.get(replica.uid, NOTHING)
            if not fit and told_s < self._judge.truth.now_s:
                self._judge.fail(f"goes by {replica}, although it was told that it is not to be used")

    def told(self, line: Line) -> None:
        """Take note of what the process is told now."""
        kind = line.get("type", "")
        is_set = (line.get("kind") or line["object"].get("kind")) in SETS
        if kind == "ERROR":
            return
        if kind:
            version = int(line["object"]["metadata"]["resourceVersion"])
            self._watched[is_set] = max(self._watched[is_set], version)
        elif "items" in line:
            version = int(line["metadata"]["resourceVersion"])
            self._watched[is_set] = min(self._watched[is_set], version)
        if kind != "BOOKMARK":
            (self._told_of_set if is_set else self._told_of_pods)(line)

    def doubted(self, line: Line) -> None:
        """Take note of what need not be believed, but may be: of those pods what is older is no news."""
        for pod in line.get("items", [line.get("object", line)]):
            self._keep(pod["metadata"], fit=True)

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
        """Keep the newest of each pod: its version, whether it may be used, and when that was told."""
        asks = self._judge.world.settings.readiness != "pod"
        for pod in line.get("items", [line.get("object", line)]):
            meta = pod["metadata"]
            gone = line.get("type") == "DELETED" or "deletionTimestamp" in meta
            self._keep(meta, fit=not gone and (asks or is_ready(pod)))

    def _keep(self, meta: dict[str, Any], fit: bool) -> None:
        uid, version = meta.get("uid", ""), int(meta.get("resourceVersion") or 0)
        if version > self._pods.get(uid, NOTHING)[0]:
            self._pods[uid] = version, fit, self._judge.truth.now_s

    def _watch_begins(self, host: Any, path: bytes, version: str) -> None:
        """A watch that goes on from further back hears things twice, and one from now on misses some."""
        told = self._watched[path.endswith(b"/statefulsets")]
        if host is self._process and int(version or 0) < told:
            self._judge.fail(f"a watch begins at version {version or 'any'}, although it was told {told}")
