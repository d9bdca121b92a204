"""
Pods: what of them matters to us, and which of them can be given clients. Pure.

A pod's own word counts, never the StatefulSet's counts: while a pod is dying the set may still report one
ready replica, and the pod itself Ready=True. Imported by ``kube.diagnosis``, ``kube.store`` and
``kube.cluster``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bkscaler.kube import fields
from bkscaler.kube.client import path_to
from bkscaler.kube.statefulset import StatefulSetView
from bkscaler.model import Replica, Stage


@dataclass(frozen=True, kw_only=True)
class ContainerView:
    """
    One container's state.

    :param name: its name.
    :param image: what it runs.
    :param init: whether it is an init container; one that restarts always (a sidecar) counts as ordinary.
    :param ready: whether it is ready; an init container, whether it has done its work.
    :param running: whether it runs now.
    :param started: whether its startup probe, if any, has passed.
    :param restarts: how often it was restarted.
    :param waiting_reason: why it does not run, for example ``ImagePullBackOff``; ``""`` when it does.
    :param waiting_message: the kubelet's words on it.
    :param ended: whether it has ended, now or in its last life.
    :param exit_code: of that end; 0 without one.
    :param ended_reason: of that end, for example ``OOMKilled``.
    """

    name: str = ""
    image: str = ""
    init: bool = False
    ready: bool = False
    running: bool = False
    started: bool = True
    restarts: int = 0
    waiting_reason: str = ""
    waiting_message: str = ""
    ended: bool = False
    exit_code: int = 0
    ended_reason: str = ""


@dataclass(frozen=True, kw_only=True)
class PodView:
    """
    One version of a pod.

    :param name: its name.
    :param uid: its uid; a successor of the same name has another.
    :param resource_version: version of this view.
    :param ordinal: the number its name ends in; -1 when it does not.
    :param ip: its address, or ``""`` as long as it has none.
    :param phase: ``Pending``, ``Running``, ``Succeeded``, ``Failed`` or ``Unknown``.
    :param ready: whether its condition Ready is True.
    :param terminating: whether it is being deleted.
    :param owner_uid: uid of the controller that owns it, or ``""``.
    :param reason: ``status.reason``, for example ``Evicted``.
    :param message: the words that go with it.
    :param scheduled: whether a node has been chosen for it.
    :param unscheduled: reason of PodScheduled=False, for example ``Unschedulable``; ``""`` otherwise.
    :param unscheduled_message: the scheduler's words on it.
    :param unready_message: the words of Ready=False.
    :param set_up: False while volumes, network and sandbox are not there yet.
    :param claims: names of the volume claims it mounts.
    :param containers: init containers first, as the kubelet reports them.
    """

    name: str
    uid: str = ""
    resource_version: str = ""
    ordinal: int = -1
    ip: str = ""
    phase: str = ""
    ready: bool = False
    terminating: bool = False
    owner_uid: str = ""
    reason: str = ""
    message: str = ""
    scheduled: bool = False
    unscheduled: str = ""
    unscheduled_message: str = ""
    unready_message: str = ""
    set_up: bool = True
    claims: tuple[str, ...] = ()
    containers: tuple[ContainerView, ...] = ()


def collection_path(namespace: str) -> str:
    """Give the path of the pods of a namespace."""
    return path_to("api", "v1", "namespaces", namespace, "pods")


def parse(value: Mapping[str, Any]) -> PodView:
    """Read a Pod object; odd or missing parts are empty, nothing is raised."""
    scheduled = fields.condition(value, "PodScheduled")
    not_scheduled = scheduled.get("status") == "False"
    ready = fields.condition(value, "Ready")
    name = fields.text(value, "metadata", "name")
    return PodView(
        name=name,
        uid=fields.text(value, "metadata", "uid"),
        resource_version=fields.text(value, "metadata", "resourceVersion"),
        ordinal=_ordinal(name),
        ip=fields.text(value, "status", "podIP"),
        phase=fields.text(value, "status", "phase"),
        ready=ready.get("status") == "True",
        terminating=bool(fields.text(value, "metadata", "deletionTimestamp")),
        owner_uid=_controller(value),
        reason=fields.text(value, "status", "reason"),
        message=fields.text(value, "status", "message"),
        scheduled=bool(fields.text(value, "spec", "nodeName")),
        unscheduled=fields.text(scheduled, "reason") if not_scheduled else "",
        unscheduled_message=fields.text(scheduled, "message") if not_scheduled else "",
        unready_message=fields.text(ready, "message"),
        set_up=fields.condition(value, "PodReadyToStartContainers").get("status") != "False",
        claims=_claims(value),
        containers=_containers(value),
    )


def usable_replicas(
    owner: StatefulSetView,
    pods: Iterable[PodView],
    *,
    suspects: Collection[str] = (),
    require_ready: bool = True,
) -> tuple[Replica, ...]:
    """
    Choose the pods that can be given clients.

    :param owner: the StatefulSet.
    :param pods: any pods; those of another owner, also of a namesake before it, are left out.
    :param suspects: uids that an earlier spec has condemned (:mod:`bkscaler.kube.store`).
    :param require_ready: False accepts running pods that are not Ready, for a caller that asks the
        builder itself.
    :returns: replicas by ordinal.
    """
    chosen = [
        Replica(ordinal=pod.ordinal, name=pod.name, uid=pod.uid, ip=pod.ip)
        for pod in pods
        if pod.uid not in suspects and serves(owner, pod) and (pod.ready or not require_ready)
    ]
    return tuple(sorted(chosen))


def serves(owner: StatefulSetView, pod: PodView) -> bool:
    """Tell whether a pod is wanted by this set, runs, and is not going away."""
    wanted = bool(pod.uid) and pod.owner_uid == owner.uid and owner.wants(pod.ordinal)
    return wanted and bool(pod.ip) and pod.phase == "Running" and not pod.terminating


def stage(owner: StatefulSetView, pods: Iterable[PodView]) -> Stage:
    """
    Say how far the first wanted pod has come that is not going away.

    :param owner: the StatefulSet.
    :param pods: any pods; those of another owner are left out.
    """
    wanted = [
        pod for pod in pods if pod.owner_uid == owner.uid and owner.wants(pod.ordinal) and not pod.terminating
    ]
    if not wanted:
        return Stage.ABSENT
    first = min(wanted, key=lambda pod: pod.ordinal)
    if first.phase == "Running":
        return Stage.STARTED
    return Stage.SCHEDULED if first.scheduled else Stage.CREATED


def _ordinal(name: str) -> int:
    """Read the number at the end of a pod's name."""
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else -1


def _controller(value: Mapping[str, Any]) -> str:
    """Find the uid of the owner that controls the pod."""
    owners = fields.items(value, "metadata", "ownerReferences")
    return next((fields.text(owner, "uid") for owner in owners if fields.flag(owner, "controller")), "")


def _claims(value: Mapping[str, Any]) -> tuple[str, ...]:
    """List the volume claims of a pod."""
    volumes = fields.items(value, "spec", "volumes")
    names = (fields.text(volume, "persistentVolumeClaim", "claimName") for volume in volumes)
    return tuple(name for name in names if name)


def _containers(value: Mapping[str, Any]) -> tuple[ContainerView, ...]:
    """Read the states of all containers."""
    sidecars = {
        fields.text(spec, "name")
        for spec in fields.items(value, "spec", "initContainers")
        if spec.get("restartPolicy") == "Always"
    }
    init = [
        _container(each, init=fields.text(each, "name") not in sidecars)
        for each in fields.items(value, "status", "initContainerStatuses")
    ]
    main = [_container(each, init=False) for each in fields.items(value, "status", "containerStatuses")]
    return tuple(init + main)


def _container(status: Mapping[str, Any], *, init: bool) -> ContainerView:
    """Read one container's status."""
    now = fields.mapping(status, "state", "terminated")
    end = now or fields.mapping(status, "lastState", "terminated")
    return ContainerView(
        name=fields.text(status, "name"),
        image=fields.text(status, "image"),
        init=init,
        ready=fields.flag(status, "ready") or (init and bool(now) and not fields.number(now, "exitCode")),
        running="running" in fields.mapping(status, "state"),
        started=status.get("started") is not False,
        restarts=fields.number(status, "restartCount"),
        waiting_reason=fields.text(status, "state", "waiting", "reason"),
        waiting_message=fields.text(status, "state", "waiting", "message"),
        ended=bool(end),
        exit_code=fields.number(end, "exitCode"),
        ended_reason=fields.text(end, "reason"),
    )
