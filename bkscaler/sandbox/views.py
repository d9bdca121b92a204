"""
Between what is stored and what a client sees.

Core and ``events.k8s.io`` Events are two forms of one object, stored in the core form; everything else is
stored as it is seen. Pure.
"""

from __future__ import annotations

from bkscaler.sandbox.kinds import CORE_EVENTS, EVENTS, Kind
from bkscaler.sandbox.objects import Object

_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_ORIGINAL = {new: old for old, new in _RENAMED.items()}
_ALWAYS: Object = {"involvedObject": {}, "source": {}, "firstTimestamp": None, "lastTimestamp": None}


def table_of(kind: Kind) -> str:
    """Name the table of the state that holds a resource's objects."""
    return kind.plural


def to_view(kind: Kind, stored: Object) -> Object:
    """Give the object as ``kind`` shows it, with ``kind`` and ``apiVersion`` first."""
    view: Object = {"kind": kind.kind, "apiVersion": kind.api_version}
    for key, value in stored.items():
        if key not in view:
            view[_RENAMED.get(key, key) if kind is EVENTS else key] = value
    return view


def from_view(kind: Kind, value: Object) -> Object:
    """Give the object as it is stored; what the client left out gets its empty value."""
    if kind not in (EVENTS, CORE_EVENTS):
        return {"kind": kind.kind, "apiVersion": kind.api_version, **value}
    stored: Object = {"kind": "Event", "apiVersion": "v1"}
    for key, item in value.items():
        if key not in stored:
            stored[_ORIGINAL.get(key, key)] = item
    for key, empty in _ALWAYS.items():
        stored.setdefault(key, empty)
    return stored
