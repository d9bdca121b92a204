"""
Just enough OpenAPI for ``kubectl create`` and ``kubectl apply``: they ask whether the server checks fields.

Every resource is said to take ``fieldValidation``; no schemas are given, so ``kubectl explain`` has
nothing to explain. Pure.
"""

from __future__ import annotations

from bkscaler.sandbox.kinds import KINDS, Kind
from bkscaler.sandbox.objects import Object

ROOT = "/openapi/v3"
"""Path of the index; each group version's document is below it."""


def _base(kind: Kind) -> str:
    return f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"


def _path(kind: Kind) -> tuple[str, Object]:
    place = "namespaces/{namespace}/" if kind.namespaced else ""
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    operation = {"x-kubernetes-group-version-kind": gvk, "parameters": [parameter], "responses": {}}
    return f"/{_base(kind)}/{place}{kind.plural}/{{name}}", {"patch": operation}


def describe(path: str) -> Object | None:
    """
    Answer a path of the OpenAPI.

    :param path: the request's path.
    :returns: the index or a document, or None when there is none at this path.
    """
    bases = dict.fromkeys(_base(kind) for kind in KINDS)
    if path.rstrip("/") == ROOT:
        return {"paths": {base: {"serverRelativeURL": f"{ROOT}/{base}"} for base in bases}}
    wanted = path.removeprefix(f"{ROOT}/")
    if wanted not in bases:
        return None
    paths = dict(_path(kind) for kind in KINDS if _base(kind) == wanted)
    info = {"title": "bkscaler sandbox", "version": "v1"}
    return {"openapi": "3.0.0", "info": info, "paths": paths}
