"""
Who may do what: users by their tokens, and a pluggable authorizer.

The sandbox's own token may do everything. Further tokens have the rights that an :class:`Authorizer` gives
them, for example :class:`Roles`; its answers become the recorded 403s and those to ``kubectl auth can-i``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bkscaler.sandbox.failures import ApiFailure, details_of
from bkscaler.sandbox.objects import Object

ADMIN = "sandbox-admin"
"""User of the token in the sandbox's kubeconfig."""

ANONYMOUS = "system:anonymous"
"""User of a request without credentials."""

_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
_PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version")


@dataclass(frozen=True, kw_only=True)
class Access:
    """
    One thing that somebody wants to do.

    :param user: who.
    :param verb: ``get``, ``list``, ``watch``, ``create``, ``update``, ``patch`` or ``delete``.
    :param group: API group, ``""`` for the core group.
    :param resource: plural name; ``""`` for a path that is no resource.
    :param subresource: such as ``scale``, or ``""``.
    :param namespace: ``""`` for the cluster scope.
    :param name: ``""`` for all; for a list or watch the name that its fieldSelector allows.
    :param path: the path, for one that is no resource.
    """

    user: str
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Authorizer(Protocol):
    """Decides about accesses."""

    def allows(self, access: Access) -> bool:
        """Say whether the access is allowed. Asked once for each request; must not write to the state."""


class AllowAuthenticated:
    """Everybody with a token may do everything; anonymous users see health and version only."""

    def allows(self, access: Access) -> bool:
        """Allow all users but the anonymous one."""
        return access.user != ANONYMOUS or access.path.startswith(_PUBLIC_PATHS)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """
    One rule of a Role.

    :param verbs: what may be done.
    :param groups: API groups, ``""`` for the core group.
    :param resources: plural names, with ``/scale`` for a subresource.
    :param names: the only objects it is about; none means all. As on a real server a ``create`` has no name.
    """

    verbs: tuple[str, ...]
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    names: tuple[str, ...] = ()

    def allows(self, access: Access) -> bool:
        """Say whether an access is covered; ``*`` stands for everything."""
        target = f"{access.resource}/{access.subresource}" if access.subresource else access.resource
        return (
            _covers(self.verbs, access.verb)
            and _covers(self.groups, access.group)
            and _covers(self.resources, target)
            and (not self.names or access.name in self.names)
        )


def rules_of(role: Object) -> tuple[Rule, ...]:
    """
    Read the rules of a Role manifest.

    :param role: an object of ``rbac.authorization.k8s.io``.
    """
    return tuple(
        Rule(
            verbs=tuple(rule.get("verbs") or ()),
            groups=tuple(rule.get("apiGroups") or ()),
            resources=tuple(rule.get("resources") or ()),
            names=tuple(rule.get("resourceNames") or ()),
        )
        for rule in role.get("rules") or ()
    )


class Roles:
    """
    Users with restricted rights, each in one namespace; everybody else is judged by another authorizer.

    Everybody with a token may ask about themselves and read the public paths, as on a real server.

    :ivar granted: rules by user and namespace; may be changed at any time.
    """

    def __init__(self, others: Authorizer | None = None) -> None:
        self.granted: dict[str, dict[str, tuple[Rule, ...]]] = {}
        self._others = others or AllowAuthenticated()

    def allows(self, access: Access) -> bool:
        """Decide."""
        if access.user not in self.granted:
            return self._others.allows(access)
        if _about_oneself(access) or (not access.resource and access.path.startswith(_PUBLIC_PATHS)):
            return True
        return any(rule.allows(access) for rule in self.granted[access.user].get(access.namespace, ()))


def _covers(listed: tuple[str, ...], wanted: str) -> bool:
    return "*" in listed or wanted in listed


def _about_oneself(access: Access) -> bool:
    return access.resource in ("selfsubjectaccessreviews", "selfsubjectreviews") and access.verb == "create"


def forbidden(access: Access) -> ApiFailure:
    """Give the 403 for an access that was not allowed."""
    if not access.resource:
        message = f'forbidden: User "{access.user}" cannot {access.verb} path "{access.path}"'
        return ApiFailure(403, "Forbidden", message, details={}, headers=_NO_SNIFFING)
    resource = "/".join(filter(None, (access.resource, access.subresource)))
    scope = f'in the namespace "{access.namespace}"' if access.namespace else "at the cluster scope"
    qualified = ".".join(filter(None, (access.resource, access.group)))
    subject = f'{qualified} "{access.name}"' if access.name else qualified
    message = (
        f'{subject} is forbidden: User "{access.user}" cannot {access.verb} resource "{resource}" '
        f'in API group "{access.group}" {scope}'
    )
    details = details_of(access.name, access.group, access.resource)
    return ApiFailure(403, "Forbidden", message, details=details, headers=_NO_SNIFFING)


def user_of(header: str | None, tokens: Mapping[str, str]) -> str:
    """
    Find the user of a request.

    :param header: the ``Authorization`` header, or None.
    :param tokens: user by token.
    :raises ApiFailure: 401 for a token that is not known; the same for one that has expired.
    """
    if header is None:
        return ANONYMOUS
    scheme, _, token = header.partition(" ")
    user = tokens.get(token.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        raise ApiFailure(401, "Unauthorized", "Unauthorized")
    return user
