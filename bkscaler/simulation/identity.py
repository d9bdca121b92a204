"""Who bkscaler is to the API server of a world: a token that is renewed, and rights that are taken away."""

from __future__ import annotations

from itertools import count

from bkscaler.kube.auth import TokenFile
from bkscaler.sandbox.authorization import ADMIN, Access, AllowAuthenticated
from bkscaler.sandbox.cluster import Cluster

TAKEN = (("statefulsets", "scale"), ("statefulsets", ""), ("pods", ""), ("events", ""))
"""The resources whose rights may be taken away."""


class Identity:
    """
    The token's file and the rights.

    :param cluster: whose.
    :ivar token: what the file holds.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.token = cluster.token
        self._cluster = cluster
        self._numbers = count(1)
        self._taken: set[tuple[str, str]] = set()
        self._others = AllowAuthenticated()
        cluster.root.authorizer = self

    @property
    def is_well(self) -> bool:
        """Whether the token is good and no right is missing that matters."""
        return self.token in self._cluster.tokens and self._taken <= {("events", "")}

    def expire(self) -> None:
        """Let the token be of no use any more."""
        self._cluster.tokens.pop(self.token, None)

    def renew(self) -> None:
        """Write another token into the file; the last one may go on being good."""
        self.token = f"token-{next(self._numbers)}"
        self._cluster.tokens[self.token] = ADMIN

    def take(self, resource: tuple[str, str]) -> None:
        """Take the rights on a resource away."""
        self._taken.add(resource)

    def give_back(self) -> None:
        """Give all rights back."""
        self._taken.clear()

    def allows(self, access: Access) -> bool:
        """Decide, for the API server."""
        return (access.resource, access.subresource) not in self._taken and self._others.allows(access)


class TokenInMemory(TokenFile):
    """
    The product's token file, with a file that is not on a disk.

    :param identity: has what the file holds.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        super().__init__("token")

    def _look(self) -> tuple[int, int, int]:
        return (int.from_bytes(self._identity.token.encode()[-8:], "big"), 0, 0)

    def _read(self) -> str:
        self._stamp = self._look()
        return self._identity.token
