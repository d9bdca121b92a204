"""
Deleting: at once, or for a running pod by a deletionTimestamp that the kubelet then acts on.

Used by the API and by the StatefulSet controller. Writes to the state; waits for nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from bkscaler.sandbox.failures import conflict
from bkscaler.sandbox.kinds import KINDS, NAMESPACES, PODS, Kind
from bkscaler.sandbox.objects import Object, clone, dig, stamp
from bkscaler.sandbox.state import State
from bkscaler.sandbox.views import table_of


def check_preconditions(kind: Kind, value: Object, preconditions: Object) -> None:
    """
    Compare a DeleteOptions' preconditions with the object.

    :raises ApiFailure: 409 when the uid or the version is another.
    """
    meta = value["metadata"]
    uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
    why = ""
    if uid and uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
    elif version and version != meta["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion "
            f"in record ({meta['resourceVersion']}). The object might have been modified"
        )
    if why:
        raise conflict(kind.kind, kind.group, meta["name"], why)


def mark_deleted(pod: Object, now: datetime, grace_s: int) -> None:
    """Set a pod's deletionTimestamp ``grace_s`` ahead, in place."""
    meta = pod["metadata"]
    if "deletionTimestamp" not in meta:
        meta["generation"] = meta.get("generation", 1) + 1
    meta["deletionTimestamp"] = stamp(now + timedelta(seconds=grace_s))
    meta["deletionGracePeriodSeconds"] = grace_s


def delete_pod(state: State, pod: Object, now: datetime, grace_s: int | None = None) -> Object:
    """
    Delete a pod as the API server does.

    One that runs is only marked, and vanishes when the kubelet has stopped it; one that was never bound
    to a node, or with a grace of zero, goes at once. Marking a second time can only shorten the grace.

    :param pod: the pod as it is stored; not changed.
    :param grace_s: seconds, or None for the pod's own.
    :returns: the pod as the client is shown it.
    """
    if grace_s is None:
        grace_s = int(dig(pod, "spec", "terminationGracePeriodSeconds") or 0)
    if not dig(pod, "spec", "nodeName"):
        grace_s = 0
    old_grace = pod["metadata"].get("deletionGracePeriodSeconds")
    if old_grace is None or grace_s < old_grace:
        pod = clone(pod)
        mark_deleted(pod, now, grace_s)
        pod = state.put("pods", pod)
    if grace_s == 0:
        state.remove("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
    return pod


def delete_namespace(state: State, name: str) -> None:
    """Delete a namespace with all that is in it, at once."""
    for kind in KINDS:
        if kind.namespaced:
            for value in state.peek_all(table_of(kind), name):
                state.remove(table_of(kind), name, value["metadata"]["name"])
    state.remove("namespaces", "", name)


def delete(state: State, kind: Kind, value: Object, now: datetime, options: Object) -> Object:
    """
    Delete an object.

    :param options: the client's DeleteOptions; ``{}`` when there are none.
    :returns: what the client is answered: the pod for a pod, otherwise a Status.
    :raises ApiFailure: 409 for a failed precondition.
    """
    check_preconditions(kind, value, options.get("preconditions") or {})
    meta = value["metadata"]
    if kind is PODS:
        return delete_pod(state, value, now, options.get("gracePeriodSeconds"))
    if kind is NAMESPACES:
        delete_namespace(state, meta["name"])
    else:
        if options.get("propagationPolicy") == "Orphan":
            disown(state, meta)
        state.remove(table_of(kind), meta.get("namespace", ""), meta["name"])
    details: Object = {"name": meta["name"], "group": kind.group, "kind": kind.plural, "uid": meta["uid"]}
    details = {key: item for key, item in details.items() if item}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def disown(state: State, owner: Object) -> None:
    """Take the owner reference off every pod of ``owner`` (its metadata), so that they outlive it."""
    for pod in state.objects("pods", owner.get("namespace", "")):
        references = pod["metadata"].get("ownerReferences") or []
        kept = [reference for reference in references if reference.get("uid") != owner["uid"]]
        if len(kept) != len(references):
            pod["metadata"]["ownerReferences"] = kept
            state.put("pods", pod)
