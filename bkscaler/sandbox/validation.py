"""What may be written: the recorded rules for StatefulSets, Leases and Events. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bkscaler.sandbox.failures import Cause, invalid
from bkscaler.sandbox.kinds import EVENTS, LEASES, STATEFULSETS, Kind
from bkscaler.sandbox.objects import Object, dig

_MUTABLE_SPEC = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_IMMUTABLE_MESSAGE = (
    "Forbidden: updates to statefulset spec for fields other than "
    + ", ".join(f"'{name}'" for name in _MUTABLE_SPEC[:-1])
    + f" and '{_MUTABLE_SPEC[-1]}' are forbidden"
)
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_QUALIFIED_MESSAGE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_MAX_REASON = 128
_MAX_NOTE = 1024


def _value(shown: object, why: str) -> str:
    return f"Invalid value: {shown}: {why}"


def check_replicas(kind: str, group: str, name: str, replicas: int) -> None:
    """
    Refuse a negative number of replicas.

    :raises ApiFailure: 422.
    """
    if replicas < 0:
        message = _value(replicas, "must be greater than or equal to 0")
        raise invalid(kind, group, name, Cause(message=message, field="spec.replicas"))


def _lease_causes(value: Object) -> Iterator[Cause]:
    duration = dig(value, "spec", "leaseDurationSeconds")
    if duration is not None and duration <= 0:
        yield Cause(message=_value(duration, "must be greater than 0"), field="spec.leaseDurationSeconds")
    transitions = dig(value, "spec", "leaseTransitions")
    if transitions is not None and transitions < 0:
        message = _value(transitions, "must be greater than or equal to 0")
        yield Cause(message=message, field="spec.leaseTransitions")


def _spec_without_mutable(value: Object) -> Object:
    return {key: item for key, item in value.get("spec", {}).items() if key not in _MUTABLE_SPEC}


def _set_causes(value: Object, old: Object | None) -> Iterator[Cause]:
    selector = dig(value, "spec", "selector", "matchLabels") or {}
    labels = dig(value, "spec", "template", "metadata", "labels") or {}
    if not selector or any(labels.get(key) != item for key, item in selector.items()):
        message = "Invalid value: null: `selector` does not match template `labels`"
        yield Cause(message=message, field="spec.template.metadata.labels")
    containers = dig(value, "spec", "template", "spec", "containers") or []
    path = "spec.template.spec.containers"
    if not containers:
        yield Cause(reason="FieldValueRequired", message="Required value", field=path)
    for index, container in enumerate(containers):
        for name in ("name", "image"):
            if not container.get(name):
                field = f"{path}[{index}].{name}"
                yield Cause(reason="FieldValueRequired", message="Required value", field=field)
    if old is not None and _spec_without_mutable(value) != _spec_without_mutable(old):
        yield Cause(reason="FieldValueForbidden", message=_IMMUTABLE_MESSAGE, field="spec")


def _too_long(value: str, limit: int) -> bool:
    return len(value.encode()) > limit


def _controller_causes(controller: str) -> Iterator[Cause]:
    field = "reportingController"
    name = controller.rpartition("/")[2]
    if not controller:
        yield Cause(reason="FieldValueRequired", message="Required value", field=field)
        yield Cause(message=_value('""', "name part must be non-empty"), field=field)
    if not _QUALIFIED.fullmatch(name):
        yield Cause(message=_value(f'"{controller}"', _QUALIFIED_MESSAGE), field=field)


def _required(value: Object, name: str, limit: int) -> Iterator[Cause]:
    text = value.get(name) or ""
    if not text:
        yield Cause(reason="FieldValueRequired", message="Required value", field=name)
    elif _too_long(text, limit):
        yield Cause(message=_value('""', f"can have at most {limit} characters"), field=name)


def _event_causes(value: Object) -> Iterator[Cause]:
    """Check an ``events.k8s.io`` Event in that group's form."""
    regarding = dig(value, "regarding", "namespace") or ""
    if regarding not in (value["metadata"].get("namespace"), "default"):
        message = _value(f'"{regarding}"', "does not match event.namespace")
        yield Cause(message=message, field="involvedObject.namespace")
    if not value.get("eventTime"):
        yield Cause(reason="FieldValueRequired", message="Required value", field="eventTime")
    yield from _controller_causes(value.get("reportingController") or "")
    for name in ("reportingInstance", "action", "reason"):
        yield from _required(value, name, _MAX_REASON)
    if value.get("type") not in ("Normal", "Warning"):
        shown = _value('""', f"has invalid value: {value.get('type') or ''}")
        yield Cause(message=shown, field="type")
    if _too_long(value.get("note") or "", _MAX_NOTE):
        yield Cause(message=_value('""', f"can have at most {_MAX_NOTE} characters"), field="message")


def _uid_causes(value: Object, old: Object) -> Iterator[Cause]:
    uid = value["metadata"].get("uid")
    if uid and uid != old["metadata"]["uid"]:
        message = _value(f'"{uid}"', "field is immutable")
        yield Cause(message=message, field="metadata.uid")
        yield Cause(message=message, field="metadata.uid")


def validate(kind: Kind, value: Object, old: Object | None) -> None:
    """
    Refuse what the real server would refuse.

    :param value: the object to be written, already decoded, in the form of ``kind``.
    :param old: what it replaces, None for a new one.
    :raises ApiFailure: 422 with every cause.
    """
    name = value["metadata"].get("name", "")
    if kind is EVENTS and old is None:
        causes = list(_event_causes(value))
        if causes:
            raise invalid(kind.kind, "", name, *causes)
        return
    causes = [] if old is None else list(_uid_causes(value, old))
    if kind is LEASES:
        causes.extend(_lease_causes(value))
    if kind is STATEFULSETS and not causes:
        check_replicas(kind.kind, kind.group, name, value["spec"].get("replicas") or 0)
        causes.extend(_set_causes(value, old))
    if causes:
        raise invalid(kind.kind, kind.group, name, *causes)
