"""The ``/scale`` of a StatefulSet: read, replace and patch. Nothing here waits or knows of HTTP."""

from __future__ import annotations

from bkscaler.sandbox.failures import Undecodable, bad_request, conflict
from bkscaler.sandbox.fields import int32
from bkscaler.sandbox.kinds import STATEFULSETS
from bkscaler.sandbox.objects import Object, clone, dig
from bkscaler.sandbox.patches import Patch, undecodable_patch
from bkscaler.sandbox.validation import check_replicas
from bkscaler.sandbox.verbs import Verbs, check_name, check_version

_META = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
_FIELD = "ScaleSpec.spec.replicas"


def scale_of(value: Object) -> Object:
    """Give the Scale of a StatefulSet; at zero ``spec`` is empty, as Go leaves a zero out."""
    replicas = dig(value, "spec", "replicas") or 0
    labels = dig(value, "spec", "selector", "matchLabels") or {}
    selector = ",".join(f"{key}={item}" for key, item in sorted(labels.items()))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: value["metadata"][key] for key in _META if key in value["metadata"]},
        "spec": {"replicas": replicas} if replicas else {},
        "status": {"replicas": dig(value, "status", "replicas") or 0, "selector": selector},
    }


def unknown_fields(scale: Object) -> list[str]:
    """Name the fields of a Scale's spec that do not exist, for a Warning header."""
    return [f"spec.{key}" for key in scale.get("spec") or {} if key != "replicas"]


class ScaleVerbs:
    """
    Reads and writes scales.

    :param verbs: the writer of the StatefulSets themselves.
    """

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    def get(self, namespace: str, name: str) -> Object:
        """
        Give a scale.

        :raises ApiFailure: 404.
        """
        return scale_of(self._verbs.get(STATEFULSETS, namespace, name))

    def replace(self, namespace: str, name: str, sent: Object, *, dry_run: bool = False) -> Object:
        """
        Replace a scale.

        :raises ApiFailure: 400, 404, 409, 422 or 500.
        """
        kind = sent.get("kind", "Scale")
        if kind != "Scale":
            raise bad_request(
                f'{kind} in version "v1" cannot be handled as a Scale: '
                f"converting (v1.{kind}) to (autoscaling.Scale): unknown conversion"
            )
        try:
            int32(dig(sent, "spec", "replicas"), _FIELD)
        except Undecodable as error:
            raise bad_request(f'Scale in version "v1" cannot be handled as a Scale: {error}') from error
        return self._apply(namespace, name, sent, dry_run)

    def patch(
        self, namespace: str, name: str, patch: Patch, *, dry_run: bool = False, strict: bool = False
    ) -> tuple[Object, list[str]]:
        """
        Patch a scale; the answer holds the new spec and the old status.

        :param strict: refuse unknown fields instead of naming them.
        :returns: the Scale, and the unknown fields that were ignored.
        :raises ApiFailure: 400, 404, 409, 422 or 500.
        """
        base = clone(self.get(namespace, name))
        base["metadata"].pop("resourceVersion")
        value = patch(base)
        unknown = unknown_fields(value)
        try:
            int32(dig(value, "spec", "replicas"), _FIELD)
            if strict and unknown:
                raise Undecodable(f'strict decoding error: unknown field "{unknown[0]}"')
        except Undecodable as error:
            raise undecodable_patch(value, error) from error
        return self._apply(namespace, name, value, dry_run), unknown

    def _apply(self, namespace: str, name: str, scale: Object, dry_run: bool) -> Object:
        meta = scale.get("metadata") or {}
        check_name(meta.get("name"), name)
        old = self._verbs.get(STATEFULSETS, namespace, name)
        uid = old["metadata"]["uid"]
        if meta.get("uid") not in (None, "", uid):
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {uid}"
            raise conflict("statefulsets/scale", "apps", name, why)
        replicas = dig(scale, "spec", "replicas") or 0
        check_replicas("Scale", "autoscaling", name, replicas)
        check_version(STATEFULSETS, old, meta.get("resourceVersion"))
        change: Object = {"spec": {"replicas": replicas}}

        def apply(target: Object) -> Object:
            return {**target, "spec": {**target["spec"], **change["spec"]}}

        return scale_of(self._verbs.patch(STATEFULSETS, namespace, name, apply, dry_run=dry_run))
