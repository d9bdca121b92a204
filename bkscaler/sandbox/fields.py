"""
Types and forms of single fields, as the real server's decoder checks them. Pure.

A wrong one is :class:`~bkscaler.sandbox.failures.Undecodable`: the request never reaches validation.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from bkscaler.sandbox.failures import Undecodable
from bkscaler.sandbox.kinds import CORE_EVENTS, EVENTS, LEASES, STATEFULSETS, Kind
from bkscaler.sandbox.objects import Object, dig, micro_stamp

_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_ZONE = re.compile(r"(Z|[+-]\d\d:\d\d)$")
_LAYOUT = "2006-01-02T15:04:05.000000Z07:00"
_INT32_MAX = 2**31 - 1
_GO_WORDS = {bool: "bool", str: "string", list: "array", dict: "object"}

MICRO_TIMES = {
    LEASES: (("spec", "acquireTime"), ("spec", "renewTime")),
    EVENTS: (("eventTime",), ("series", "lastObservedTime")),
    CORE_EVENTS: (("eventTime",), ("series", "lastObservedTime")),
}
"""Where each kind holds times of six digits."""


def _not_a_time(text: str, rest: str, layout: str) -> Undecodable:
    return Undecodable(f'parsing time "{text}" as "{_LAYOUT}": cannot parse "{rest}" as "{layout}"')


def micro_time(value: Any) -> str:
    """
    Check a ``metav1.MicroTime`` and give it in the server's form, in UTC.

    :raises Undecodable: unless it has exactly six fractional digits and a zone.
    """
    if not isinstance(value, str):
        raise Undecodable("json: cannot unmarshal value into Go value of type string")
    match = _SECONDS.match(value)
    if match is None:
        raise _not_a_time(value, value, "2006")
    rest = value[match.end() :]
    if not re.match(r"\.\d{6}", rest):
        raise _not_a_time(value, rest, ".000000")
    if not _ZONE.fullmatch(rest[7:]):
        raise _not_a_time(value, rest[7:], "Z07:00")
    try:
        return micro_stamp(datetime.fromisoformat(value.replace("Z", "+00:00")))
    except ValueError as error:
        raise Undecodable(f'parsing time "{value}": out of range') from error


def int32(value: Any, where: str) -> int:
    """
    Check a 32-bit integer; None is 0, as in Go.

    :param where: Go's name of the field, such as ``ScaleSpec.spec.replicas``.
    :raises Undecodable: for another type, a fraction or a number out of range.
    """
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and -_INT32_MAX - 1 <= value <= _INT32_MAX:
        return value
    shown = _GO_WORDS.get(type(value), f"number {value}")
    raise Undecodable(f"json: cannot unmarshal {shown} into Go struct field {where} of type int32")


def _check_type(value: Any, wanted: type, shown: str, where: str) -> None:
    if value is not None and not isinstance(value, wanted):
        word = _GO_WORDS.get(type(value), "number")
        raise Undecodable(f"json: cannot unmarshal {word} into Go struct field {where} of type {shown}")


def _check_set(value: Object) -> None:
    """Check what the sandbox itself reads in a StatefulSet."""
    spec = value.get("spec")
    _check_type(spec, dict, "v1.StatefulSetSpec", "StatefulSet.spec")
    int32(dig(spec, "replicas"), "StatefulSetSpec.spec.replicas")
    _check_type(dig(spec, "template"), dict, "v1.PodTemplateSpec", "StatefulSetSpec.spec.template")
    pod = dig(spec, "template", "spec")
    _check_type(pod, dict, "v1.PodSpec", "PodTemplateSpec.spec.template.spec")
    containers = dig(pod, "containers")
    _check_type(containers, list, "[]v1.Container", "PodSpec.spec.template.spec.containers")
    for container in containers or []:
        _check_type(container, dict, "v1.Container", "PodSpec.spec.template.spec.containers")
        for name in ("name", "image"):
            where = f"Container.spec.template.spec.containers.{name}"
            _check_type(container.get(name), str, "string", where)


def decode(kind: Kind, value: Object) -> None:
    """
    Check the types of the fields the sandbox understands, and bring times to the server's form, in place.

    :raises Undecodable: for the first field that is wrong.
    """
    for path in MICRO_TIMES.get(kind, ()):
        holder = dig(value, *path[:-1]) if len(path) > 1 else value
        if isinstance(holder, dict) and holder.get(path[-1]) is not None:
            holder[path[-1]] = micro_time(holder[path[-1]])
    if kind is STATEFULSETS:
        _check_set(value)
    if kind is LEASES:
        for name in ("leaseDurationSeconds", "leaseTransitions"):
            if dig(value, "spec", name) is not None:
                int32(value["spec"][name], f"LeaseSpec.spec.{name}")
