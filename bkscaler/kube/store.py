"""
What is known of one StatefulSet and its pods, merged from several sources into one picture. Pure.

Facts come from four sides that overtake each other: the lists and the events of two watches, the reads of a
refresh, and the answer to our own scale request. Three rules keep the picture right.

**Versions never go backwards.** The newest version seen is the *floor* of its kind, and what is older is
ignored. An answer older than the floor that stood when it was *asked for* proves instead that the server
has gone back (a restored backup), and resets the floor; a :class:`Mark` taken before asking tells the
two apart.

**Condemned pods are not trusted.** After 1 -> 0 -> 1 in quick succession the controller may already have
deleted the pod, while the pod's own event, with its deletionTimestamp, has not reached us: spec, status
and pod all look healthy, and a client sent there loses its build. So a pod whose ordinal the spec did not
ask for, for however short a time, becomes a *suspect* by its uid; and so do all pods when the set's
generation makes a leap, as we cannot know what it was in between. A suspect is cleared only by a refresh:
a StatefulSet read with ``observedGeneration == generation`` means that the controller has carried out
every earlier spec, its deletions included; a pod that a list made *after that* still shows without a
deletionTimestamp was spared.

Successors have other uids and are no suspects, if they were born after the controller had acted on the last
spec that did not ask for them. After 0 -> 1 -> 0 -> 1 one that lags may just be making the pod for the first
1, and will delete it for the 0 that it has yet to see. Such a pod is a suspect, too.

**Pods belong to a uid.** A set that was deleted and made again has another uid; its namesake's pods are
never usable.

**What is gone may be back.** A pod whose deletion has been seen is believed in again when something newer
shows it: the server was restored from a backup, and a kubelet has started the pod again. What is older than
that deletion does not get here, unless the server is to be followed back; see :mod:`bkscaler.kube.behind`.

Imported by ``kube.watches`` and ``kube.cluster``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bkscaler.kube import pods, statefulset
from bkscaler.kube.diagnosis import Diagnosis, diagnose
from bkscaler.kube.pods import PodView
from bkscaler.kube.statefulset import StatefulSetView
from bkscaler.kube.versions import is_newer, is_older, newest
from bkscaler.model import Observation


@dataclass(frozen=True, kw_only=True)
class Mark:
    """
    The floors at the moment a read was asked for: its answer can be no older.

    :param set_floor: newest version seen of the StatefulSet, or of a list of it.
    :param pods_floor: newest version seen of the pods, or of a list of them.
    """

    set_floor: str
    pods_floor: str


@dataclass(frozen=True, kw_only=True)
class CaughtUp:
    """
    Proof, from a read of the StatefulSet, that the controller had acted on this generation by then.

    :param uid: of the set.
    :param generation: the one it has acted on.
    """

    uid: str
    generation: int


class ClusterStore:
    """
    Everything known about one StatefulSet by name. Methods merge a fact each; none raises.

    :param name: of the StatefulSet.
    :param require_ready: see :func:`bkscaler.kube.pods.usable_replicas`.
    """

    def __init__(self, name: str, *, require_ready: bool = True) -> None:
        self._name = name
        self._require_ready = require_ready
        self._set: StatefulSetView | None = None
        self._set_known = False
        self._set_floor = ""
        self._pods: dict[str, PodView] = {}
        self._pods_known = False
        self._pods_floor = ""
        self._suspects: set[str] = set()
        self._distrust_lists = False
        self._doubtful: int | None = None
        self._trusted_from = ""

    def __repr__(self) -> str:
        known = f"{len(self._pods)} pods, {len(self._suspects)} suspect"
        return (
            f"<ClusterStore {self._name}: {'no set' if self._set is None else self._set.replicas}, {known}>"
        )

    @property
    def stateful_set(self) -> StatefulSetView | None:
        """The newest version of the StatefulSet, or None when there is none or nothing is known."""
        return self._set

    @property
    def refresh_would_help(self) -> bool:
        """Whether only suspicion keeps a pod from being used, and the controller has caught up."""
        if self._set is None or not self._set.caught_up or not self._suspects:
            return False
        unsuspected = pods.usable_replicas(self._set, self._pods.values(), require_ready=self._require_ready)
        return any(replica.uid in self._suspects for replica in unsuspected)

    def mark(self) -> Mark:
        """Take note of what is known, before asking for a list."""
        return Mark(set_floor=self._set_floor, pods_floor=self._pods_floor)

    def set_read(self, items: list[dict[str, Any]], version: str, mark: Mark) -> CaughtUp | None:
        """
        Merge a list of the StatefulSet.

        :param items: none or one of our name; others are left out.
        :param version: of the list.
        :param mark: taken before it was asked for. A list that is older than that is taken all the same: an
            etcd that was restored counts from an earlier version.
        :returns: proof for :meth:`pods_read` that the controller had caught up, or None.
        """
        found = next((v for v in map(statefulset.parse, items) if v.name == self._name), None)
        overtaken = is_older(version, self._set_floor) and not is_older(version, mark.set_floor)
        if not overtaken:
            self._set_floor = version
            self._take_set(found)
        if found is None or not found.caught_up:
            return None
        return CaughtUp(uid=found.uid, generation=found.generation)

    def set_event(self, kind: str, value: dict[str, Any]) -> None:
        """
        Merge a watch event of the StatefulSet. One as new as the floor is taken: after our own scale
        request it completes what the answer has told.

        :param kind: ``ADDED``, ``MODIFIED`` or ``DELETED``.
        :param value: the object.
        """
        seen = statefulset.parse(value)
        if seen.name != self._name or is_older(seen.resource_version, self._set_floor):
            return
        self._set_floor = newest(seen.resource_version, self._set_floor)
        self._take_set(None if kind == "DELETED" else seen)

    def scaled(self, replicas: int, version: str) -> None:
        """
        Merge the answer to our own scale request, unless the watch has overtaken it, or it has no version:
        a request decided on no version would be unconditional.

        :param replicas: ``spec.replicas`` now.
        :param version: of the StatefulSet now.
        """
        known = self._set
        if known is None or not version or not is_newer(version, than=known.resource_version):
            return
        self._set_floor = newest(version, self._set_floor)
        generation = known.generation + (replicas != known.replicas)
        self._take_set(replace(known, replicas=replicas, resource_version=version, generation=generation))

    def pods_read(
        self, items: list[dict[str, Any]], version: str, mark: Mark, caught_up: CaughtUp | None = None
    ) -> None:
        """
        Merge a list of pods.

        :param items: the pods.
        :param version: of the list.
        :param mark: as for :meth:`set_read`.
        :param caught_up: what :meth:`set_read` proved before this list was asked for; clears suspects.
        """
        overtaken = is_older(version, self._pods_floor) and not is_older(version, mark.pods_floor)
        if not overtaken:
            listed = {view.uid: view for view in map(pods.parse, items) if view.uid}
            self._pods_floor = version
            if self._distrust_lists:
                self._suspects |= listed.keys() - self._pods.keys()
            self._pods, self._pods_known = listed, True
            self._suspects &= listed.keys()
        if caught_up is not None and self._still(caught_up):
            self._suspects.clear()
            self._distrust_lists = False
        self._condemn()

    def pod_event(self, kind: str, value: dict[str, Any]) -> None:
        """
        Merge a watch event of a pod; one that the last list or event covers is ignored.

        :param kind: ``ADDED``, ``MODIFIED`` or ``DELETED``.
        :param value: the object.
        """
        seen = pods.parse(value)
        if not seen.uid or not is_newer(seen.resource_version, than=self._pods_floor):
            return
        self._pods_floor = newest(seen.resource_version, self._pods_floor)
        if kind == "DELETED":
            self._pods.pop(seen.uid, None)
            self._suspects.discard(seen.uid)
        else:
            if seen.uid not in self._pods and self._may_be_of_old(seen):
                self._suspects.add(seen.uid)
            self._pods[seen.uid] = seen
        self._condemn()

    def observation(self) -> Observation | None:
        """
        Draw the picture.

        :returns: None as long as the StatefulSet, or the pods of one that exists, were never listed.
        """
        if self._set is None:
            missing = f"there is no StatefulSet {self._name}"
            return Observation(exists=False, waiting_for=missing) if self._set_known else None
        if not self._pods_known:
            return None
        everyone = self._pods.values()
        ready = pods.usable_replicas(
            self._set, everyone, suspects=self._suspects, require_ready=self._require_ready
        )
        why = Diagnosis() if ready else diagnose(self._set, everyone, suspects=self._suspects)
        return Observation(
            replicas=self._set.replicas,
            resource_version=self._set.resource_version,
            ready=ready,
            waiting_for=why.waiting_for,
            hopeless=why.hopeless,
            stage=pods.stage(self._set, everyone),
        )

    def _take_set(self, seen: StatefulSetView | None) -> None:
        """Replace the set, and doubt the pods if something may have happened to them unseen."""
        before, self._set, self._set_known = self._set, seen, True
        if seen is None:
            return
        if before is None or before.uid != seen.uid:
            leapt = not seen.caught_up
        else:
            leapt = seen.generation - before.generation not in (0, 1)
        if leapt:
            self._suspects |= self._pods.keys()
        if leapt or (before is not None and seen.replicas < before.replicas):
            self._distrust_lists = True
            self._doubtful = seen.generation
        if self._doubtful is not None and seen.observed_generation >= self._doubtful:
            self._doubtful, self._trusted_from = None, seen.resource_version
        self._condemn()

    def _may_be_of_old(self, born: PodView) -> bool:
        """Tell whether a pod may have been made before the controller had seen what condemns it."""
        return self._doubtful is not None or not is_newer(born.resource_version, than=self._trusted_from)

    def _condemn(self) -> None:
        """Suspect every pod that the spec does not ask for at this moment."""
        if self._set is not None:
            self._suspects |= {pod.uid for pod in self._pods.values() if not self._set.wants(pod.ordinal)}

    def _still(self, caught_up: CaughtUp) -> bool:
        """Tell whether a proof is about the spec that holds now."""
        return (
            self._set is not None
            and self._set.uid == caught_up.uid
            and self._set.generation == caught_up.generation
        )
