"""
One request, read: which resource, which object, which verb, which options. Pure.

Paths are those of the API server: ``/api/v1`` and ``/apis/<group>/<version>``, with or without a
namespace, and the old ``/watch/`` prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from bkscaler.sandbox.authorization import Access
from bkscaler.sandbox.discovery import is_of_known_group
from bkscaler.sandbox.failures import bad_request, no_such_path, not_allowed
from bkscaler.sandbox.kinds import NAMESPACES, Kind, find_kind
from bkscaler.sandbox.selectors import selected_name

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_MIN_GROUP_STEPS = 3
_TRUE = ("1", "t", "true", "True", "TRUE", "T")


@dataclass(frozen=True, kw_only=True)
class Call:
    """
    A request for a resource.

    :param kind: the resource.
    :param namespace: ``""`` for the cluster scope.
    :param name: ``""`` for the collection.
    :param subresource: ``""`` for the object itself.
    :param verb: as authorization knows it; ``watch`` only for a collection.
    :param query: the last value of each query parameter.
    """

    kind: Kind
    namespace: str
    name: str
    subresource: str
    verb: str
    query: Mapping[str, str]

    def text(self, parameter: str) -> str:
        """Give a query parameter, ``""`` when it is missing."""
        return self.query.get(parameter, "")

    def flag(self, parameter: str) -> bool:
        """Give a query parameter as a truth value; missing is false."""
        return self.text(parameter) in _TRUE

    def number(self, parameter: str) -> int:
        """
        Give a query parameter as a number, 0 when it is missing.

        :raises ApiFailure: 400 when it is none.
        """
        text = self.text(parameter) or "0"
        if not text.isdigit():
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        return int(text)

    @property
    def dry_run(self) -> bool:
        """Whether nothing must be stored."""
        return self.text("dryRun") == "All"

    def access(self, user: str) -> Access:
        """Say what the user wants to do."""
        name = self.name
        if not name and self.verb in ("list", "watch"):
            name = selected_name(self.text("fieldSelector"))
        return Access(
            user=user,
            verb=self.verb,
            group=self.kind.group,
            resource=self.kind.plural,
            subresource=self.subresource,
            namespace=self.namespace,
            name=name,
        )


def _split(path: str) -> tuple[str, str, list[str]]:
    """Split a path into group, version and the steps after them."""
    steps = [unquote(step) for step in path.strip("/").split("/")]
    if steps[0] == "api" and len(steps) > 1:
        return "", steps[1], steps[2:]
    if steps[0] == "apis" and len(steps) > _MIN_GROUP_STEPS - 1:
        return steps[1], steps[2], steps[3:]
    return "", "", []


def _place(steps: list[str]) -> tuple[str, list[str]]:
    """Take the namespace off the front of the steps, unless the namespace itself is the object."""
    if len(steps) > _MIN_GROUP_STEPS - 1 and steps[0] == NAMESPACES.plural:
        return steps[1], steps[2:]
    return "", steps


def _verb(method: str, name: str, watching: bool) -> str:
    if method == "HEAD":
        method = "GET"
    if method not in _VERBS:
        raise not_allowed()
    if method == "GET" and not name:
        return "watch" if watching else "list"
    return _VERBS[method]


def read_call(method: str, path: str, query: Mapping[str, str]) -> Call | None:
    """
    Read a request.

    :returns: None when the path is none of a resource (discovery, health ...).
    :raises ApiFailure: 404 for a resource that does not exist, 405 for a method that makes no sense.
    """
    group, version, steps = _split(path)
    if not steps or not is_of_known_group(path):
        return None
    legacy_watch = steps[0] == "watch"
    namespace, rest = _place(steps[1:] if legacy_watch else steps)
    kind = find_kind(group, version, rest[0]) if rest else None
    if kind is None or len(rest) > _MIN_GROUP_STEPS or (namespace and not kind.namespaced):
        raise no_such_path()
    name, subresource = [*rest, "", ""][1:3]
    if legacy_watch and name:
        query = {**query, "fieldSelector": f"metadata.name={name}"}
        name = ""
    if subresource and subresource not in kind.subresources:
        raise no_such_path()
    watching = legacy_watch or query.get("watch", "") in _TRUE
    verb = _verb(method, name, watching)
    if name and verb == "create":
        raise not_allowed()
    return Call(kind=kind, namespace=namespace, name=name, subresource=subresource, verb=verb, query=query)


def check_served(call: Call) -> None:
    """
    Refuse a verb that the resource or subresource does not have.

    :raises ApiFailure: 405.
    """
    allowed = ("get", "patch", "update") if call.subresource else call.kind.verbs
    missing_name = not call.name and call.verb not in ("list", "watch", "create")
    missing_namespace = call.kind.namespaced and not call.namespace and call.verb not in ("list", "watch")
    if call.verb not in allowed or missing_name or missing_namespace:
        raise not_allowed()
