"""
The rights that bkscaler needs, as one table; asking the API server for them; and saying how one is granted.

The table is what the code uses, no more: a test runs everything against a server that grants exactly this.
``list`` and ``watch`` of one named object work by ``fieldSelector=metadata.name=...``, so that the Role can
hold ``resourceNames``. Imported by ``kube.permissions`` and the doctor.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bkscaler.errors import ApiStatus, Throttled, Unauthorized
from bkscaler.kube import fields
from bkscaler.kube.client import ApiClient

ROLE_FILE = "deploy/kubernetes/02-role.yaml"
"""The manifest that grants all of it."""
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_WHO_AM_I = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, kw_only=True)
class Right:
    """
    One thing that must be allowed, in the namespace of the StatefulSet.

    :param verb: ``get``, ``list``, ``watch``, ``create`` or ``patch``.
    :param group: API group, ``""`` for the core group.
    :param resource: plural name.
    :param subresource: ``scale``, or ``""``.
    :param name: the one object it is about, or ``""``.
    :param essential: whether bkscaler cannot work without it; the others only make it more helpful.
    """

    verb: str
    group: str = ""
    resource: str
    subresource: str = ""
    name: str = ""
    essential: bool = True

    @property
    def target(self) -> str:
        """What it is about, as ``kubectl`` writes it: ``statefulsets.apps/scale``."""
        qualified = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{qualified}/{self.subresource}" if self.subresource else qualified


def needed_rights(name: str) -> tuple[Right, ...]:
    """
    List what bkscaler needs.

    :param name: of the StatefulSet.
    """
    sets = [Right(verb=v, group="apps", resource="statefulsets", name=name) for v in ("get", "list", "watch")]
    scale = [
        Right(verb=v, group="apps", resource="statefulsets", subresource="scale", name=name)
        for v in ("get", "patch")
    ]
    pods = [Right(verb=v, resource="pods") for v in ("get", "list", "watch")]
    events = [
        Right(verb=v, group="events.k8s.io", resource="events", essential=False) for v in ("create", "patch")
    ]
    return (*sets, *scale, *pods, *events)


@dataclass(frozen=True, kw_only=True)
class Missing:
    """
    Rights about the same target that are not granted.

    :param rights: at least one.
    :param namespace: where they are needed.
    :param user: who needs them, as the server calls them; ``""`` when that is not known.
    """

    rights: tuple[Right, ...]
    namespace: str
    user: str = ""

    @property
    def essential(self) -> bool:
        """Whether bkscaler cannot work without one of them."""
        return any(right.essential for right in self.rights)

    @property
    def words(self) -> str:
        """What is missing, and what to do, in one line."""
        return f"{self.what}; {self.remedy}"

    @property
    def what(self) -> str:
        """Which verbs, on what, and where."""
        first = self.rights[0]
        name = f' "{first.name}"' if first.name else ""
        return f"no right to {self._verbs} {first.target}{name} in namespace {self.namespace}"

    @property
    def remedy(self) -> str:
        """The command that grants it, and the line of the manifest to change for a set of another name."""
        first = self.rights[0]
        hint = f" (or in {ROLE_FILE} the line resourceNames: [{first.name}])" if first.name else ""
        return f"grant it with: {self.command}{hint}"

    @property
    def command(self) -> str:
        """The ``kubectl`` line that grants it, without touching a Role that is there, of whatever builder."""
        first = self.rights[0]
        kind = "-".join(filter(None, (first.resource, first.subresource, first.name)))
        account = self.user.removeprefix(_SERVICE_ACCOUNT).replace(":", "-")
        whose = f"-{account}" if self.user.startswith(_SERVICE_ACCOUNT) else ""
        role = f"bkscaler-{self._verbs.replace(',', '-')}-{kind}{whose}"
        name = f" --resource-name={first.name}" if first.name else ""
        kubectl = f"kubectl -n {self.namespace}"
        return (
            f"{kubectl} create role {role} --verb={self._verbs} --resource={first.target}{name} && "
            f"{kubectl} create rolebinding {role} --role={role} {self._subject}"
        )

    @property
    def _verbs(self) -> str:
        return ",".join(right.verb for right in self.rights)

    @property
    def _subject(self) -> str:
        if self.user.startswith(_SERVICE_ACCOUNT):
            return f"--serviceaccount={self.user.removeprefix(_SERVICE_ACCOUNT)}"
        return f"--user={shlex.quote(self.user)}" if self.user else "--serviceaccount=NAMESPACE:NAME"


def grouped(rights: Iterable[Right], *, namespace: str, user: str) -> tuple[Missing, ...]:
    """Put missing rights about the same target together."""
    groups: dict[tuple[str, str], list[Right]] = {}
    for right in rights:
        groups.setdefault((right.target, right.name), []).append(right)
    return tuple(Missing(rights=tuple(g), namespace=namespace, user=user) for g in groups.values())


async def who_am_i(client: ApiClient) -> str:
    """
    Ask the server what it calls us.

    :returns: for example ``system:serviceaccount:builds:bkscaler``; ``""`` when it does not say, as servers
        before v1.28 do not.
    :raises ApiError: as :meth:`ApiClient.request`, but for answers that only mean that it does not say.
    """
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await client.request("POST", _WHO_AM_I, body=body)
    except (Unauthorized, Throttled):
        raise
    except ApiStatus:
        return ""
    return fields.text(answer, "status", "userInfo", "username")


async def is_granted(client: ApiClient, namespace: str, right: Right) -> bool:
    """
    Ask whether we have a right.

    :param namespace: where.
    :raises ApiError: as :meth:`ApiClient.request`.
    """
    attributes: dict[str, Any] = {
        "namespace": namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": right.resource,
        "subresource": right.subresource,
        "name": right.name,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    answer = await client.request("POST", _REVIEWS, body=body)
    return fields.flag(answer, "status", "allowed")


async def missing_rights(client: ApiClient, namespace: str, rights: Iterable[Right]) -> tuple[Missing, ...]:
    """
    Ask for each of some rights.

    :param namespace: where.
    :param rights: what is needed.
    :returns: what is missing, grouped; ``()`` when nothing is.
    :raises ApiError: as :meth:`ApiClient.request`.
    """
    missing = [right for right in rights if not await is_granted(client, namespace, right)]
    return grouped(missing, namespace=namespace, user=await who_am_i(client) if missing else "")
