"""
Objects that the sandbox makes by itself, and the defaults that it fills into a client's StatefulSet. Pure.
"""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from functools import lru_cache

from bkscaler.sandbox.objects import Object, letters_of

NODE = "sandbox-node"
"""Name of the one node that pods are bound to."""

IMAGE = "moby/buildkit:v0.13.0"
"""Image that the sandbox's own StatefulSet names; nothing is pulled."""

GRACE_S = 10
"""terminationGracePeriodSeconds of the sandbox's own StatefulSet."""

_POD_DEFAULTS: Object = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
_CONTAINER_DEFAULTS: Object = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}
_SET_DEFAULTS: Object = {
    "podManagementPolicy": "OrderedReady",
    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    "revisionHistoryLimit": 10,
    "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
}


def namespace_manifest(name: str) -> Object:
    """Make a namespace."""
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}}


def node_manifest() -> Object:
    """Make the node; it exists so that ``kubectl get nodes`` and a pod's ``nodeName`` agree."""
    address = {"type": "InternalIP", "address": "127.0.0.1"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    return {
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        "spec": {},
        "status": {"addresses": [address], "conditions": [ready], "nodeInfo": {"kubeletVersion": "sandbox"}},
    }


def service_manifest(name: str, app: str, port: int) -> Object:
    """Make the headless Service of a set."""
    ports = [{"name": "grpc", "protocol": "TCP", "port": port, "targetPort": port}]
    spec: Object = {"clusterIP": "None", "clusterIPs": ["None"], "type": "ClusterIP"}
    spec.update(ports=ports, selector={"app": app}, sessionAffinity="None")
    return {"metadata": {"name": name, "labels": {"app": app}}, "spec": spec, "status": {"loadBalancer": {}}}


def set_manifest(name: str, *, replicas: int, port: int, policy: str = "OrderedReady") -> Object:
    """
    Make the StatefulSet that the sandbox starts with.

    :param replicas: ``spec.replicas``, >= 0.
    :param port: container port of the builder.
    :param policy: ``OrderedReady`` or ``Parallel``.
    """
    container = {
        "name": "buildkitd",
        "image": IMAGE,
        "ports": [{"name": "grpc", "containerPort": port, "protocol": "TCP"}],
    }
    template: Object = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": GRACE_S},
    }
    spec: Object = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    spec.update(serviceName=f"{name}-headless", podManagementPolicy=policy)
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def default_set(value: Object) -> None:
    """Fill the defaults into a StatefulSet, in place; a missing ``replicas`` is 1 as on a real cluster."""
    spec = value.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    for key, default in _SET_DEFAULTS.items():
        spec.setdefault(key, deepcopy(default))
    pod = spec.setdefault("template", {}).setdefault("spec", {})
    for container in pod.get("containers") or []:
        for key, default in _CONTAINER_DEFAULTS.items():
            container.setdefault(key, deepcopy(default))
        for port in container.get("ports") or []:
            port.setdefault("protocol", "TCP")
    for key, default in _POD_DEFAULTS.items():
        pod.setdefault(key, deepcopy(default))
    value.setdefault("status", {"replicas": 0, "availableReplicas": 0})


def revision_of(value: Object) -> str:
    """Name the revision of a StatefulSet's template; equal templates have equal revisions."""
    text = json.dumps(value["spec"]["template"], sort_keys=True)
    return f"{value['metadata']['name']}-{_letters_for(text)}"


@lru_cache(64)
def _letters_for(text: str) -> str:
    return letters_of(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
