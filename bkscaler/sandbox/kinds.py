"""
The table of the resources that the sandbox serves, and how one is found by its path.

Discovery, routing, storage and printing all read this one table. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

_ALL_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")
_READ_VERBS = ("get", "list", "watch")
_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_OBJECT_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """
    One resource in one version of one API group.

    :param group: API group; ``""`` is the core group.
    :param version: version in the group.
    :param plural: name in paths.
    :param singular: name that ``kubectl`` also takes.
    :param kind: name in objects.
    :param namespaced: False when its objects live outside of namespaces.
    :param short_names: abbreviations for ``kubectl``.
    :param categories: such as ``all``.
    :param verbs: what clients may do; anything else is a 405.
    :param subresources: names that may follow an object's name in a path.
    :param fields: paths that a fieldSelector may name.
    :param create_on_update: a PUT of a missing object creates it.
    :param unconditional_update: a PUT may leave out the resourceVersion.
    """

    group: str
    version: str = "v1"
    plural: str
    singular: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _ALL_VERBS
    subresources: tuple[str, ...] = ()
    fields: tuple[str, ...] = _COMMON_FIELDS
    create_on_update: bool = False
    unconditional_update: bool = True

    @property
    def qualified(self) -> str:
        """The name that error messages use, such as ``statefulsets.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


NAMESPACES = Kind(
    group="",
    plural="namespaces",
    singular="namespace",
    kind="Namespace",
    namespaced=False,
    short_names=("ns",),
)
SERVICES = Kind(
    group="",
    plural="services",
    singular="service",
    kind="Service",
    short_names=("svc",),
    categories=("all",),
)
CONFIGMAPS = Kind(group="", plural="configmaps", singular="configmap", kind="ConfigMap", short_names=("cm",))
NODES = Kind(
    group="",
    plural="nodes",
    singular="node",
    kind="Node",
    namespaced=False,
    short_names=("no",),
    verbs=_READ_VERBS,
)
PODS = Kind(
    group="",
    plural="pods",
    singular="pod",
    kind="Pod",
    short_names=("po",),
    categories=("all",),
    verbs=("delete", "get", "list", "patch", "update", "watch"),
    fields=(*_COMMON_FIELDS, "spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"),
)
CORE_EVENTS = Kind(
    group="",
    plural="events",
    singular="event",
    kind="Event",
    short_names=("ev",),
    fields=(*_COMMON_FIELDS, *(f"involvedObject.{f}" for f in _OBJECT_FIELDS), "reason", "type"),
    create_on_update=True,
)
EVENTS = Kind(
    group="events.k8s.io",
    plural="events",
    singular="event",
    kind="Event",
    short_names=("ev",),
    fields=(*_COMMON_FIELDS, *(f"regarding.{f}" for f in _OBJECT_FIELDS), "reason", "type"),
    create_on_update=True,
)
STATEFULSETS = Kind(
    group="apps",
    plural="statefulsets",
    singular="statefulset",
    kind="StatefulSet",
    short_names=("sts",),
    categories=("all",),
    subresources=("scale",),
)
LEASES = Kind(
    group="coordination.k8s.io",
    plural="leases",
    singular="lease",
    kind="Lease",
    create_on_update=True,
    unconditional_update=False,
)
ACCESS_REVIEWS = Kind(
    group="authorization.k8s.io",
    plural="selfsubjectaccessreviews",
    singular="selfsubjectaccessreview",
    kind="SelfSubjectAccessReview",
    namespaced=False,
    verbs=("create",),
)

SELF_REVIEWS = Kind(
    group="authentication.k8s.io",
    plural="selfsubjectreviews",
    singular="selfsubjectreview",
    kind="SelfSubjectReview",
    namespaced=False,
    verbs=("create",),
)

KINDS = (
    CONFIGMAPS,
    CORE_EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    STATEFULSETS,
    SELF_REVIEWS,
    ACCESS_REVIEWS,
    LEASES,
    EVENTS,
)
"""Every resource, grouped in the order in which discovery lists the groups."""


def find_kind(group: str, version: str, plural: str) -> Kind | None:
    """Find a resource by its place in a path; None when the sandbox has no such resource."""
    for kind in KINDS:
        if (kind.group, kind.version, kind.plural) == (group, version, plural):
            return kind
    return None
