"""
Server-side printing: the Tables that ``kubectl get`` shows.

A Table's rows carry the metadata of their objects (or the whole object, when the client asks for it), so
that ``kubectl`` can sort and follow. Pure; the time comes in as a value.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from bkscaler.sandbox.kinds import (
    CONFIGMAPS,
    CORE_EVENTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    STATEFULSETS,
    Kind,
)
from bkscaler.sandbox.objects import Object, dig, parse_stamp
from bkscaler.sandbox.views import from_view

Cells = Callable[[Object, datetime], list[Any]]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_COLUMNS: dict[Kind, str] = {
    # A leading "+" marks a column that only ``-o wide`` shows.
    STATEFULSETS: "Name Ready Age +Containers +Images",
    PODS: "Name Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates",
    CORE_EVENTS: "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name",
    EVENTS: "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name",
    LEASES: "Name Holder Age",
    NAMESPACES: "Name Status Age",
    SERVICES: "Name Type Cluster-IP External-IP Port(s) Age +Selector",
    CONFIGMAPS: "Name Data Age",
    NODES: "Name Status Roles Age Version",
}


def age_text(seconds: float) -> str:
    """Write an age as ``kubectl`` prints it: ``5s``, ``2m3s``, ``14m``, ``3h5m``, ``2d``."""
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return f"{whole // _MINUTE}m{whole % _MINUTE}s" if whole % _MINUTE else f"{whole // _MINUTE}m"
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        minutes = whole % _HOUR // _MINUTE
        return f"{whole // _HOUR}h{minutes}m" if minutes else f"{whole // _HOUR}h"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    return f"{whole // _DAY}d"


def _since(value: Object, now: datetime, *path: str) -> str:
    text = dig(value, *path)
    return age_text((now - parse_stamp(text)).total_seconds()) if text else "<unknown>"


def _age(value: Object, now: datetime) -> str:
    return _since(value, now, "metadata", "creationTimestamp")


def _set_cells(value: Object, now: datetime) -> list[Any]:
    ready = dig(value, "status", "readyReplicas") or 0
    containers = value["spec"]["template"]["spec"].get("containers") or []
    names = ",".join(container["name"] for container in containers)
    images = ",".join(container.get("image", "") for container in containers)
    return [
        value["metadata"]["name"],
        f"{ready}/{value['spec'].get('replicas', 0)}",
        _age(value, now),
        names,
        images,
    ]


def pod_status_text(value: Object) -> str:
    """Give the STATUS column of a pod: the reason that says most."""
    text: str = dig(value, "status", "phase") or "Unknown"
    ended = text in ("Succeeded", "Failed")
    for container in dig(value, "status", "containerStatuses") or []:
        for state in ("waiting", "terminated"):
            reason = dig(container, "state", state, "reason")
            text = reason or text
    return "Terminating" if value["metadata"].get("deletionTimestamp") and not ended else text


def _restarts_text(statuses: list[Object], now: datetime) -> str:
    restarts = sum(status.get("restartCount", 0) for status in statuses)
    last = [dig(status, "lastState", "terminated", "finishedAt") for status in statuses]
    ages = [_since({"t": text}, now, "t") for text in last if text]
    return f"{restarts} ({ages[0]} ago)" if restarts and ages else str(restarts)


def _pod_cells(value: Object, now: datetime) -> list[Any]:
    statuses = dig(value, "status", "containerStatuses") or []
    ready = sum(1 for status in statuses if status.get("ready"))
    return [
        value["metadata"]["name"],
        f"{ready}/{len(value['spec']['containers'])}",
        pod_status_text(value),
        _restarts_text(statuses, now),
        _age(value, now),
        dig(value, "status", "podIP") or "<none>",
        dig(value, "spec", "nodeName") or "<none>",
        "<none>",
        "<none>",
    ]


def _event_cells(value: Object, now: datetime) -> list[Any]:
    value = value if "involvedObject" in value else from_view(EVENTS, value)
    about = value.get("involvedObject") or {}
    source = dig(value, "source", "component") or value.get("reportingComponent") or ""
    host = dig(value, "source", "host") or value.get("reportingInstance") or ""
    last = value.get("lastTimestamp") or value.get("eventTime")
    first = value.get("firstTimestamp") or value.get("eventTime")
    return [
        _since({"t": last}, now, "t"),
        value.get("type", ""),
        value.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        about.get("fieldPath", ""),
        f"{source}, {host}" if host else source,
        (value.get("message") or "").strip(),
        _since({"t": first}, now, "t"),
        value.get("count") or dig(value, "series", "count") or 1,
        value["metadata"]["name"],
    ]


def _service_cells(value: Object, now: datetime) -> list[Any]:
    spec = value.get("spec") or {}
    ports = ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in spec.get("ports") or [])
    selector = ",".join(f"{key}={item}" for key, item in (spec.get("selector") or {}).items())
    kind, address = spec.get("type", "ClusterIP"), spec.get("clusterIP", "None")
    return [
        value["metadata"]["name"],
        kind,
        address,
        "<none>",
        ports or "<none>",
        _age(value, now),
        selector or "<none>",
    ]


def _name_and_age(*path: str) -> Cells:
    """Give the cells of a simple kind: name, one more value, age."""
    return lambda value, now: [value["metadata"]["name"], dig(value, *path) or "", _age(value, now)]


def _config_cells(value: Object, now: datetime) -> list[Any]:
    return [value["metadata"]["name"], len(value.get("data") or {}), _age(value, now)]


def _node_cells(value: Object, now: datetime) -> list[Any]:
    version = dig(value, "status", "nodeInfo", "kubeletVersion")
    return [value["metadata"]["name"], "Ready", "<none>", _age(value, now), version]


_CELLS: dict[Kind, Cells] = {
    STATEFULSETS: _set_cells,
    PODS: _pod_cells,
    CORE_EVENTS: _event_cells,
    EVENTS: _event_cells,
    LEASES: _name_and_age("spec", "holderIdentity"),
    NAMESPACES: _name_and_age("status", "phase"),
    SERVICES: _service_cells,
    CONFIGMAPS: _config_cells,
    NODES: _node_cells,
}


def _definitions(kind: Kind) -> list[Object]:
    definitions: list[Object] = []
    for word in _COLUMNS[kind].split():
        name = word.lstrip("+").replace("_", " ")
        column: Object = {"name": name, "type": "string", "format": "name" if name == "Name" else ""}
        column.update(description=f"{name} of the {kind.kind}.", priority=int(word.startswith("+")))
        definitions.append(column)
    return definitions


def metadata_only(value: Object) -> Object:
    """Give an object's metadata as a PartialObjectMetadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": value["metadata"],
    }


def _row_object(value: Object, include: str) -> Object | None:
    if include == "None":
        return None
    return value if include == "Object" else metadata_only(value)


def make_table(
    kind: Kind,
    values: list[Object],
    meta: Object,
    now: datetime,
    *,
    include: str = "Metadata",
    columns: bool = True,
) -> Object:
    """
    Make a Table.

    :param values: objects in the form of ``kind``.
    :param meta: the Table's own metadata, such as a list's version.
    :param include: ``Metadata``, ``Object`` or ``None``: what of the objects goes with the rows.
    :param columns: False leaves the columns out, as after the first event of a watch.
    """
    rows = [{"cells": _CELLS[kind](value, now), "object": _row_object(value, include)} for value in values]
    definitions = _definitions(kind) if columns else None
    table: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    table.update(columnDefinitions=definitions, rows=rows)
    return table
