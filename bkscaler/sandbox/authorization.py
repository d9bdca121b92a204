"""
Who may do what: users by their tokens, and a pluggable authorizer.

The sandbox's own token may do everything. Further tokens with restricted rights need only another
:class:`Authorizer`; its answers become the recorded 403s and the answers to ``kubectl auth can-i``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bkscaler.sandbox.failures import ApiFailure, details_of

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
