"""What a client may ask of a watch, and which wishes go together. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bkscaler.sandbox.failures import Cause, invalid, malformed_version
from bkscaler.sandbox.kinds import PODS, STATEFULSETS, Kind
from bkscaler.sandbox.objects import Object

_EMPTY: dict[Kind, Object] = {
    STATEFULSETS: {
        "spec": {
            "replicas": 0,
            "selector": None,
            "template": {"metadata": {}, "spec": {"containers": None}},
            "serviceName": "",
            "updateStrategy": {},
        },
        "status": {"replicas": 0, "availableReplicas": 0},
    },
    PODS: {"spec": {"containers": None}, "status": {}},
}


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """
    What a client asks of a watch.

    :param kind: the resource.
    :param namespace: ``""`` for all.
    :param version: ``resourceVersion``.
    :param match: ``resourceVersionMatch``.
    :param timeout_s: seconds until the server ends it, > 0.
    :param bookmarks: send bookmarks.
    :param initial_events: ``sendInitialEvents``; None when the client did not say.
    :param form: ``Table``, ``PartialObjectMetadata`` or ``""``.
    :param include: for Tables, what of the objects goes with the rows.
    """

    kind: Kind
    namespace: str = ""
    version: str = ""
    match: str = ""
    timeout_s: float
    bookmarks: bool = False
    initial_events: bool | None = None
    form: str = ""
    include: str = "Metadata"


def check_watch(options: WatchOptions) -> int:
    """
    Check the options that go together.

    :returns: the version to start after; 0 for any.
    :raises ApiFailure: 422 for an initial-events request without its match, 500 for a bad version.
    """
    if options.initial_events is not None and options.match != "NotOlderThan":
        message = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        cause = Cause(reason="FieldValueForbidden", message=message, field="resourceVersionMatch")
        raise invalid("ListOptions", "meta.k8s.io", "", cause)
    version = options.version or "0"
    if not version.isdigit():
        raise malformed_version(version, f'resourceVersion: Invalid value: "{version}": ')
    return int(version)


def empty_object(kind: Kind) -> Object:
    """Give what a bookmark holds beside its metadata: the kind's empty object as Go writes it."""
    return _EMPTY.get(kind, {})
