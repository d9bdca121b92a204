"""
Create, replace, patch and delete: one writer for every resource, with the recorded refusals.

Objects come in and go out in the form of their kind. Nothing here waits or knows of HTTP.
"""

from __future__ import annotations

from bkscaler.sandbox.deletion import delete
from bkscaler.sandbox.failures import (
    Cause,
    Undecodable,
    already_exists,
    bad_request,
    conflict,
    invalid,
    malformed_version,
    not_found,
)
from bkscaler.sandbox.fields import decode
from bkscaler.sandbox.kinds import NAMESPACES, STATEFULSETS, Kind
from bkscaler.sandbox.manifests import default_set
from bkscaler.sandbox.objects import Now, Object, Random, clone, make_suffix, make_uid, stamp
from bkscaler.sandbox.patches import Patch, undecodable_patch
from bkscaler.sandbox.state import State
from bkscaler.sandbox.validation import validate
from bkscaler.sandbox.views import from_view, table_of, to_view

_KEPT = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")


def check_version(kind: Kind, old: Object, version: object) -> None:
    """
    Compare a resourceVersion that a client sent with the object's.

    :param version: ``None``, ``""`` and ``"0"`` are unconditional.
    :raises ApiFailure: 409 when it is another one, 500 when it is no number.
    """
    if version in (None, "", "0"):
        return
    if not (isinstance(version, str) and version.isdigit()):
        raise malformed_version(str(version))
    if version != old["metadata"]["resourceVersion"]:
        raise conflict(kind.plural, kind.group, old["metadata"]["name"])


def check_name(sent: object, name: str) -> None:
    """
    Compare the name in an object with the name in the path.

    :raises ApiFailure: 400 when they differ.
    """
    if sent and sent != name:
        raise bad_request(f"the name of the object ({sent}) does not match the name on the URL ({name})")


class Verbs:
    """
    The writer. Stateless beyond its state; lives as long as it.

    :param state: what it writes to.
    :param now: wall clock, for creation and deletion stamps.
    :param random: for uids and generated names.
    """

    def __init__(self, state: State, *, now: Now, random: Random) -> None:
        self._state = state
        self._now = now
        self._random = random

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """
        Give one object. Read only.

        :raises ApiFailure: 404.
        """
        stored = self._state.peek(table_of(kind), namespace, name)
        if stored is None:
            raise not_found(kind, name)
        return to_view(kind, stored)

    def create(self, kind: Kind, namespace: str, sent: Object, *, dry_run: bool = False) -> Object:
        """
        Create an object; ``generateName`` and defaults are honoured.

        :param dry_run: check and answer, but store nothing.
        :raises ApiFailure: 400, 404 (no such namespace), 409 or 422.
        """
        value = clone(sent)
        self._check_kind(kind, value)
        self._decode_body(kind, value)
        if kind.namespaced and self._state.peek("namespaces", "", namespace) is None:
            raise not_found(NAMESPACES, namespace)
        self._give_identity(kind, namespace, value)
        if kind is STATEFULSETS:
            default_set(value)
        if kind is NAMESPACES:
            value.setdefault("spec", {"finalizers": ["kubernetes"]})
            value.setdefault("status", {"phase": "Active"})
        validate(kind, value, None)
        if self._state.peek(table_of(kind), namespace, value["metadata"]["name"]) is not None:
            raise already_exists(kind, value["metadata"]["name"])
        return self._store(kind, value, dry_run)

    def replace(
        self, kind: Kind, namespace: str, name: str, sent: Object, *, dry_run: bool = False
    ) -> tuple[Object, bool]:
        """
        Replace an object, or create it where the kind allows that.

        :returns: the object, and whether it was created.
        :raises ApiFailure: 400, 404, 409, 422 or 500.
        """
        value = clone(sent)
        self._check_kind(kind, value)
        self._decode_body(kind, value)
        check_name(value.setdefault("metadata", {}).get("name"), name)
        stored = self._state.peek(table_of(kind), namespace, name)
        if stored is None:
            if not kind.create_on_update:
                raise not_found(kind, name)
            value["metadata"].update(name=name)
            value["metadata"].pop("resourceVersion", None)
            return self.create(kind, namespace, value, dry_run=dry_run), True
        if not kind.unconditional_update and not value["metadata"].get("resourceVersion"):
            why = "Invalid value: 0: must be specified for an update"
            cause = Cause(message=why, field="metadata.resourceVersion")
            raise invalid(kind.plural, kind.group, name, cause)
        return self._update(kind, to_view(kind, stored), value, dry_run), False

    def patch(self, kind: Kind, namespace: str, name: str, patch: Patch, *, dry_run: bool = False) -> Object:
        """
        Patch an object.

        :raises ApiFailure: 400, 404, 409, 422 or 500.
        """
        old = self.get(kind, namespace, name)
        base = clone(old)
        base["metadata"].pop("resourceVersion")
        value = patch(base)
        check_name(value.setdefault("metadata", {}).get("name"), name)
        try:
            decode(kind, value)
        except Undecodable as error:
            raise undecodable_patch(value, error) from error
        return self._update(kind, old, value, dry_run)

    def delete(self, kind: Kind, namespace: str, name: str, options: Object) -> Object:
        """
        Delete an object.

        :param options: the client's DeleteOptions; ``{}`` when there are none.
        :raises ApiFailure: 404 or 409.
        """
        stored = self._state.peek(table_of(kind), namespace, name)
        if stored is None:
            raise not_found(kind, name)
        return to_view_or_status(kind, delete(self._state, kind, stored, self._now(), options))

    def _check_kind(self, kind: Kind, value: Object) -> None:
        sent = value.get("kind") or kind.kind
        version = (value.get("apiVersion") or kind.api_version).rpartition("/")[2]
        if sent != kind.kind:
            raise bad_request(
                f'{sent} in version "{version}" cannot be handled as a {kind.kind}: '
                f"no kind {kind.kind!r} is registered for it"
            )

    def _decode_body(self, kind: Kind, value: Object) -> None:
        try:
            decode(kind, value)
        except Undecodable as error:
            raise bad_request(
                f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {error}'
            ) from error

    def _give_identity(self, kind: Kind, namespace: str, value: Object) -> None:
        """Give a new object its name, namespace, uid and stamp, in the order in which they are shown."""
        sent = value.get("metadata") or {}
        name = sent.get("name")
        if not name and sent.get("generateName"):
            name = sent["generateName"] + make_suffix(self._random)
        if not name:
            cause = Cause(
                reason="FieldValueRequired",
                message="Required value: name or generateName is required",
                field="metadata.name",
            )
            raise invalid(kind.kind, kind.group, "", cause)
        if sent.get("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        meta: Object = {"name": name}
        if sent.get("generateName"):
            meta["generateName"] = sent["generateName"]
        if kind.namespaced:
            meta["namespace"] = namespace
        meta["uid"] = make_uid(self._random)
        if kind is STATEFULSETS:
            meta["generation"] = 1
        meta["creationTimestamp"] = stamp(self._now())
        kept = ("labels", "annotations", "ownerReferences", "finalizers")
        meta.update({key: sent[key] for key in kept if sent.get(key)})
        value["metadata"] = meta

    def _update(self, kind: Kind, old: Object, value: Object, dry_run: bool) -> Object:
        meta, old_meta = value["metadata"], old["metadata"]
        check_version(kind, old, meta.pop("resourceVersion", None))
        validate(kind, value, old)
        meta.pop("managedFields", None)
        for key in ("namespace", *_KEPT):
            if key in old_meta:
                meta[key] = old_meta[key]
        if kind is STATEFULSETS:
            default_set(value)
            value["status"] = old.get("status", {})
            if value["spec"] != old["spec"]:
                meta["generation"] = old_meta["generation"] + 1
        meta["resourceVersion"] = old_meta["resourceVersion"]
        value["metadata"] = {key: meta[key] for key in (*old_meta, *meta) if key in meta}
        return self._store(kind, value, dry_run)

    def _store(self, kind: Kind, value: Object, dry_run: bool) -> Object:
        stored = from_view(kind, value)
        if not dry_run:
            stored = self._state.put(table_of(kind), stored)
        return to_view(kind, stored)


def to_view_or_status(kind: Kind, answer: Object) -> Object:
    """Show a deletion's answer: a Status stays as it is, an object gets the form of its kind."""
    return answer if answer.get("kind") == "Status" else to_view(kind, answer)
