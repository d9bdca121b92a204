"""
Frozen values that rooms hand to each other. Any room may import it; it imports nothing of ours.

The cluster as one value, :class:`Observation`, goes from the Kubernetes room to the scaling room; a
:class:`Replica` goes on from there to the frontend, which dials it. What the scaler has done comes back as
:class:`Happening`. A :class:`Connection` goes from the frontend to whoever reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


@dataclass(frozen=True, kw_only=True, order=True)
class Replica:
    """
    One pod that can serve now: it has a uid and an IP, it is not being deleted, and it is ready.

    :param ordinal: its place in the set, from the set's first ordinal (0 unless the set says otherwise).
    :param name: pod name, ``<set>-<ordinal>``.
    :param uid: the pod's uid; a successor of the same name has another.
    :param ip: IPv4 or IPv6 address, without brackets.
    """

    ordinal: int
    name: str
    uid: str
    ip: str


class Stage(IntEnum):
    """How far the first pod that is wanted has come on its way to serving; being ready is not told here."""

    ABSENT = 0
    """There is no pod, or only one that is going away."""
    CREATED = 1
    """There is a pod; no node has been chosen for it."""
    SCHEDULED = 2
    """A node has been chosen: volumes, images and init containers are its business now."""
    STARTED = 3
    """Its containers run."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """
    What is known of the StatefulSet and its pods at one moment. Replaced whole, never changed.

    :param exists: False when the API said that there is no such StatefulSet.
    :param replicas: ``spec.replicas``, >= 0; a number the API left out is 0.
    :param resource_version: version of the StatefulSet that ``replicas`` was read from; ``""`` when it
        does not exist.
    :param ready: the replicas that may be given clients now, by ordinal; never one that is terminating or
        that a lower ``spec.replicas`` has condemned.
    :param waiting_for: one line on why there is no ready replica yet; ``""`` when nothing is known to say.
    :param hopeless: True when ``waiting_for`` names something that time alone will rarely mend
        (unschedulable, image cannot be pulled).
    :param stage: how far the first replica that is wanted has come, for measuring a wake.
    """

    exists: bool = True
    replicas: int = 0
    resource_version: str = ""
    ready: tuple[Replica, ...] = ()
    waiting_for: str = ""
    hopeless: bool = False
    stage: Stage = Stage.ABSENT


class Happening(Enum):
    """What has become of the builder; the value is the ``reason`` of the Event on the StatefulSet."""

    WAKING_UP = "WakingUp"
    """It was scaled up, because clients wait."""
    READY = "Ready"
    """It can be given clients, after it was woken."""
    GOING_TO_SLEEP = "GoingToSleep"
    """It was scaled down, because nobody has needed it for the idle timeout."""
    WAKE_FAILED = "WakeFailed"
    """Clients were told that it does not come, and why."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """
    One client's connection as it is reported at one moment, alive or at its end.

    :param peer: the client's address.
    :param waited_s: seconds from its arrival until it was joined; until now when it was not.
    :param joined_s: seconds since it was joined to a builder; None when it was not.
    :param bytes_up: from the client to the builder so far.
    :param bytes_down: from the builder to the client so far.
    :param failed_dials: how many dials for it have failed.
    :param why: what went wrong, one line; ``""`` when nothing did.
    """

    peer: str
    waited_s: float = 0.0
    joined_s: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    failed_dials: int = 0
    why: str = ""
