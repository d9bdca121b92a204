"""
Pod objects and their statuses, field by field as they were recorded. Pure.

:class:`ContainerFacts` is what the kubelet knows; the functions turn it into the ``status`` that clients
read. A condition keeps its ``lastTransitionTime`` while its status stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from bkscaler.sandbox.manifests import NODE, revision_of
from bkscaler.sandbox.objects import Object, clone, dig, stamp

IMAGE_ID = "sandbox://sha256:" + "0" * 64
"""imageID of every container; there is no image."""

UNSCHEDULABLE = (
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: "
    "0/1 nodes are available: 1 No preemption victims found for incoming pod."
)
"""What the scheduler says of a pod that fits nowhere."""

_TOLERATIONS = [
    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
]
_POD_SPEC: Object = {
    # What admission adds to every pod.
    "serviceAccountName": "default",
    "serviceAccount": "default",
    "tolerations": _TOLERATIONS,
    "priority": 0,
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
}


@dataclass(frozen=True, kw_only=True)
class ContainerFacts:
    """
    What the kubelet knows of a pod's container.

    :param state: ``waiting``, ``running`` or ``terminated`` with its fields.
    :param last_state: how the container before this one ended, or ``{}``.
    :param ready: whether it accepts connections.
    :param restarts: how often it has been restarted.
    :param container_id: ``""`` before the first start.
    :param ip: the pod's address, ``""`` before it has one.
    """

    state: Object
    last_state: Object = field(default_factory=dict)
    ready: bool = False
    restarts: int = 0
    container_id: str = ""
    ip: str = ""


def new_pod(owner: Object, ordinal: int) -> Object:
    """
    Make the pod of a StatefulSet's ordinal; it has no uid and no stamps yet.

    :param owner: the StatefulSet.
    """
    meta, template = owner["metadata"], clone(owner["spec"]["template"])
    name = f"{meta['name']}-{ordinal}"
    labels = dict(dig(template, "metadata", "labels") or {})
    labels.update(
        {
            "apps.kubernetes.io/pod-index": str(ordinal),
            "controller-revision-hash": revision_of(owner),
            "statefulset.kubernetes.io/pod-name": name,
        }
    )
    reference = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    pod_meta: Object = {"name": name, "generateName": f"{meta['name']}-", "namespace": meta["namespace"]}
    pod_meta.update(labels=labels, ownerReferences=[reference])
    if dig(template, "metadata", "annotations"):
        pod_meta["annotations"] = template["metadata"]["annotations"]
    spec = {
        **template["spec"],
        **_POD_SPEC,
        "hostname": name,
        "subdomain": owner["spec"].get("serviceName", ""),
    }
    status = {"phase": "Pending", "qosClass": "BestEffort"}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": pod_meta, "spec": spec, "status": status}


def is_ready(pod: Object) -> bool:
    """Say whether the pod runs and its Ready condition is true, whatever its deletionTimestamp."""
    if dig(pod, "status", "phase") != "Running":
        return False
    conditions = dig(pod, "status", "conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def container_name(pod: Object) -> str:
    """Name the pod's container; the sandbox runs the first one only."""
    return str(pod["spec"]["containers"][0]["name"])


def image_of(pod: Object) -> str:
    """Name the image of the pod's container."""
    return str(pod["spec"]["containers"][0].get("image", ""))


def _condition(
    pod: Object, now: datetime, kind: str, status: bool, why: tuple[str, str] = ("", "")
) -> Object:
    text = "True" if status else "False"
    since = stamp(now)
    for old in dig(pod, "status", "conditions") or []:
        if old["type"] == kind and old["status"] == text:
            since = old["lastTransitionTime"]
    condition: Object = {"type": kind, "observedGeneration": pod["metadata"].get("generation", 1)}
    condition.update(status=text, lastProbeTime=None, lastTransitionTime=since)
    condition.update({key: text for key, text in zip(("reason", "message"), why, strict=True) if text})
    return condition


def bind(pod: Object, now: datetime) -> None:
    """Bind a pod to the node, in place."""
    pod["spec"]["nodeName"] = NODE
    condition = _condition(pod, now, "PodScheduled", True)
    del condition["observedGeneration"]
    pod["status"]["conditions"] = [condition]


def mark_unschedulable(pod: Object, now: datetime) -> None:
    """Say that a pod fits on no node, in place."""
    pod["status"]["conditions"] = [
        _condition(pod, now, "PodScheduled", False, ("Unschedulable", UNSCHEDULABLE))
    ]


def _set_status(
    pod: Object, now: datetime, phase: str, facts: ContainerFacts, conditions: list[Object]
) -> None:
    old = pod.get("status") or {}
    started = "running" in facts.state
    status: Object = {"observedGeneration": pod["metadata"].get("generation", 1), "phase": phase}
    status.update(conditions=conditions, hostIP="127.0.0.1", hostIPs=[{"ip": "127.0.0.1"}])
    if facts.ip:
        status.update(podIP=facts.ip, podIPs=[{"ip": facts.ip}])
    container: Object = {"name": container_name(pod), "state": facts.state, "lastState": facts.last_state}
    container.update(ready=facts.ready, restartCount=facts.restarts, image=image_of(pod))
    container["imageID"] = IMAGE_ID if facts.container_id else ""
    if facts.container_id:
        container["containerID"] = facts.container_id
    container["started"] = started
    status.update(startTime=old.get("startTime") or stamp(now), containerStatuses=[container])
    status["qosClass"] = old.get("qosClass", "BestEffort")
    pod["status"] = status


def show_alive(pod: Object, now: datetime, facts: ContainerFacts) -> None:
    """Write the status of a pod that is being created, runs, or waits to run again; in place."""
    message = f"containers with unready status: [{container_name(pod)}]"
    unready = ("", "") if facts.ready else ("ContainersNotReady", message)
    conditions = [
        _condition(pod, now, "PodReadyToStartContainers", bool(facts.ip)),
        _condition(pod, now, "Initialized", True),
        _condition(pod, now, "Ready", facts.ready, unready),
        _condition(pod, now, "ContainersReady", facts.ready, unready),
        _condition(pod, now, "PodScheduled", True),
    ]
    _set_status(pod, now, "Running" if facts.container_id else "Pending", facts, conditions)


def show_ended(pod: Object, now: datetime, facts: ContainerFacts, code: int) -> None:
    """Write the status of a pod whose last container has ended with a code, in place."""
    reason = "PodCompleted" if code == 0 else "PodFailed"
    conditions = [
        _condition(pod, now, "PodReadyToStartContainers", False),
        _condition(pod, now, "Initialized", True, ("PodCompleted" if code == 0 else "", "")),
        _condition(pod, now, "Ready", False, (reason, "")),
        _condition(pod, now, "ContainersReady", False, (reason, "")),
        _condition(pod, now, "PodScheduled", True),
    ]
    _set_status(pod, now, "Succeeded" if code == 0 else "Failed", facts, conditions)
