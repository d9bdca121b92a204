"""Discovery, version, health and schema: what a client asks before it asks for objects. Pure."""

from __future__ import annotations

from bkscaler.sandbox.kinds import KINDS, Kind
from bkscaler.sandbox.objects import Object

VERSION: Object = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2-bkscaler-sandbox",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}
"""Answer to ``/version``; the release whose answers were recorded."""

HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
"""Paths that answer ``ok``."""


def _resource(kind: Kind) -> Object:
    entry: Object = {"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced}
    entry.update(kind=kind.kind, verbs=list(kind.verbs))
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    return entry


def _scale_resource(kind: Kind) -> Object:
    entry: Object = {"name": f"{kind.plural}/scale", "singularName": "", "namespaced": True}
    entry.update(group="autoscaling", version="v1", kind="Scale", verbs=["get", "patch", "update"])
    return entry


def resource_list(group: str, version: str) -> Object | None:
    """Give the resources of a group's version, or None when there is no such group or version."""
    kinds = [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]
    if not kinds:
        return None
    resources = []
    for kind in kinds:
        resources.append(_resource(kind))
        if "scale" in kind.subresources:
            resources.append(_scale_resource(kind))
    listing: Object = {"kind": "APIResourceList", "apiVersion": "v1"}
    listing.update(groupVersion=f"{group}/{version}" if group else version, resources=resources)
    return listing


def group_entry(group: str) -> Object | None:
    """Describe one named API group, or None when there is none of this name."""
    versions = dict.fromkeys(kind.version for kind in KINDS if kind.group == group)
    if not group or not versions:
        return None
    entries = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": entries, "preferredVersion": entries[0]}


def group_list() -> Object:
    """Give all named API groups."""
    names = dict.fromkeys(kind.group for kind in KINDS if kind.group)
    groups = [entry for name in names if (entry := group_entry(name)) is not None]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def core_versions(address: str) -> Object:
    """Give the versions of the core group; ``address`` is where the server listens."""
    by_client = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": by_client}


def is_of_known_group(path: str) -> bool:
    """Say whether a path lies below a group that is served, so that what is not there is told in JSON."""
    match path.strip("/").split("/"):
        case ["api", _, *_]:
            return True
        case ["apis", group, _, *_]:
            return group_entry(group) is not None
    return False


def discover(path: str, address: str) -> Object | None:
    """
    Answer a discovery path.

    :param path: the request's path.
    :param address: ``host:port`` of the server.
    :returns: the answer, or None when this is no discovery path.
    """
    answer: Object | None = None
    match path.strip("/").split("/"):
        case ["version"]:
            answer = VERSION
        case ["api"]:
            answer = core_versions(address)
        case ["api", version]:
            answer = resource_list("", version)
        case ["apis"]:
            answer = group_list()
        case ["apis", group] if (entry := group_entry(group)) is not None:
            answer = {"kind": "APIGroup", "apiVersion": "v1", **entry}
        case ["apis", group, version]:
            answer = resource_list(group, version)
    return answer
