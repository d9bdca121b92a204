"""
What the StatefulSet controller does next: a pure function of the set and its pods.

It follows the real controller's rules, with their trap: under ``OrderedReady`` a scale-down waits while a
pod below is unhealthy, and the counts in the status include pods that are being deleted. A changed
template reaches pods only when they are created anew (as with ``OnDelete``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bkscaler.sandbox.manifests import revision_of
from bkscaler.sandbox.objects import Object, dig
from bkscaler.sandbox.podstatus import is_ready


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """
    One step.

    :param create: ordinals whose pods to create.
    :param delete: pods to delete.
    :param status: the set's status, from the pods as they were before the step.
    """

    create: tuple[int, ...] = ()
    delete: tuple[Object, ...] = ()
    status: Object


def _is_dying(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _is_healthy(pod: Object | None) -> bool:
    return pod is not None and is_ready(pod) and not _is_dying(pod)


def _status(owner: Object, pods: Sequence[Object]) -> Object:
    """Count the pods; zero is left out except where the real controller writes it."""
    ready = sum(1 for pod in pods if is_ready(pod))
    living = sum(1 for pod in pods if not _is_dying(pod))
    status: Object = {"observedGeneration": owner["metadata"]["generation"], "replicas": len(pods)}
    for key, count in (("readyReplicas", ready), ("currentReplicas", living), ("updatedReplicas", living)):
        if count:
            status[key] = count
    revision = revision_of(owner)
    status.update(currentRevision=revision, updateRevision=revision, collisionCount=0)
    status["availableReplicas"] = ready
    return status


def _grow(
    replicas: Mapping[int, Object | None], ordered: bool
) -> tuple[tuple[int, ...], tuple[Object, ...], bool]:
    """Look at the wanted pods: what to create, what has ended and must go, and whether to go on."""
    create: list[int] = []
    for ordinal, pod in replicas.items():
        if pod is None:
            create.append(ordinal)
            if ordered:
                return tuple(create), (), False
        elif dig(pod, "status", "phase") in ("Succeeded", "Failed"):
            return tuple(create), () if _is_dying(pod) else (pod,), False
        elif ordered and not _is_healthy(pod):
            return tuple(create), (), False
    return tuple(create), (), True


def _shrink(condemned: Sequence[Object], first_unhealthy: Object | None, ordered: bool) -> tuple[Object, ...]:
    """Look at the surplus pods, highest first: which to delete now."""
    delete: list[Object] = []
    for pod in condemned:
        if _is_dying(pod):
            if ordered:
                break
            continue
        if ordered and not is_ready(pod) and pod is not first_unhealthy:
            break
        delete.append(pod)
        if ordered:
            break
    return tuple(delete)


def plan_set(owner: Object, pods: Mapping[int, Object]) -> SetPlan:
    """
    Decide the next step.

    :param owner: the StatefulSet.
    :param pods: its pods by ordinal.
    """
    spec = owner["spec"]
    start = dig(spec, "ordinals", "start") or 0
    wanted = range(start, start + (spec.get("replicas") or 0))
    ordered = spec.get("podManagementPolicy") != "Parallel"
    replicas = {ordinal: pods.get(ordinal) for ordinal in wanted}
    surplus = sorted((ordinal for ordinal in pods if ordinal not in wanted), reverse=True)
    condemned = [pods[ordinal] for ordinal in surplus]
    status = _status(owner, list(pods.values()))
    create, delete, go_on = _grow(replicas, ordered)
    if go_on:
        candidates = [*replicas.values(), *reversed(condemned)]
        unhealthy = [pod for pod in candidates if not _is_healthy(pod)]
        delete = _shrink(condemned, unhealthy[0] if unhealthy else None, ordered)
    return SetPlan(create=create, delete=delete, status=status)
