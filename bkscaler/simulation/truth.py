"""How things stand in a world, as no part of it can know: what is so, beside what bkscaler has been told."""

from __future__ import annotations

import math
from typing import Any

from bkscaler.sandbox.controller import ordinal_of
from bkscaler.sandbox.state import Change
from bkscaler.simulation.apiserver import Trouble
from bkscaler.simulation.builders import Builder
from bkscaler.simulation.callers import Builds
from bkscaler.simulation.clients import SPOKEN_S, Client
from bkscaler.simulation.links import End, Link
from bkscaler.simulation.network import Fate
from bkscaler.simulation.process import Process
from bkscaler.simulation.serving import Manner

MUTE = frozenset({Manner.LOSES, Manner.SWALLOWS, Manner.FREEZES})
"""Manners of builders whose silence has to be waited out."""


class Truth:
    """
    What is so.

    :param world: the world.
    :ivar trouble_s: when something last went wrong that may delay things, by the acts' own account.
    :ivar disturbed_s: the same, but for a controller that lags.
    :ivar api_trouble_s: the same with what is between bkscaler and the API server.
    :ivar refused_s: when bkscaler was last refused by the API server, as its token or its rights were.
    :ivar answered_s: when the API server did last more than refuse everything.
    :ivar hopeful_s: when the pods could last come up, as far as bkscaler can know.
    :ivar lost_dial_s: when something was last dialled from where no answer comes.
    :ivar hand: who is changing the cluster now: ``bkscaler``, or somebody else.
    :ivar calm: whether nothing has ever gone wrong.
    """

    def __init__(self, world: Any) -> None:
        self.hand = "bkscaler"
        self.disturbed_s = -math.inf
        self.trouble_s = self.api_trouble_s = self.refused_s = self.lost_dial_s = -math.inf
        self.answered_s = self.hopeful_s = 0.0
        self.unreachable: set[str] = set()
        self._world = world
        world.builders.in_use = self._is_in_use
        world.network.fate = self._fate
        world.cluster.state.subscribe("pods", self._pod_changed)

    @property
    def now_s(self) -> float:
        """The time on the clock."""
        return float(self._world.clock.rightNow)

    @property
    def calm(self) -> bool:
        """Whether nothing has gone wrong so far."""
        return math.isinf(self.trouble_s)

    def something_is_wrong(self, what: str = "others") -> None:
        """
        Take note that from now on things may take longer.

        :param what: ``api`` when bkscaler may be out of touch with the API server, and in its back-offs;
            ``lag`` when only the controller lags.
        """
        self.trouble_s = self.now_s
        if what != "lag":
            self.disturbed_s = self.now_s
        if what == "api":
            self.api_trouble_s = self.now_s
            self._world.api.unsettle()

    def stateful_set(self) -> dict[str, Any] | None:
        """Give the StatefulSet, read only; None when there is none."""
        settings = self._world.settings
        table = self._world.cluster.state._table("statefulsets").objects
        found: dict[str, Any] | None = table.get((settings.sts_namespace, settings.sts_name))
        return found

    def set_is_well(self) -> bool:
        """Whether there is a StatefulSet that is not about to be deleted."""
        found = self.stateful_set()
        return found is not None and "deletionTimestamp" not in found["metadata"]

    def replicas(self) -> int:
        """Give what the set is asked to be; 0 without one."""
        found = self.stateful_set()
        return 0 if found is None else int(found["spec"].get("replicas", 1))

    def pods(self) -> list[dict[str, Any]]:
        """Give the pods, read only."""
        return list(self._world.cluster.state._table("pods").objects.values())

    def _is_in_use(self, ip: str) -> bool:
        return any(pod["status"].get("podIP") == ip for pod in self.pods())

    def _fate(self, ip: str) -> Fate:
        """Say what becomes of a dial."""
        fate: Fate = Fate.LOST if ip in self.unreachable else self._world.builders.fate(ip)
        if fate is Fate.LOST:
            self.lost_dial_s = self.now_s
        return fate

    def process(self) -> Process | None:
        """Give the bkscaler that runs; None while there is none."""
        process: Process | None = self._world.process
        return process if process is not None and process.alive else None

    def client_ends(self) -> list[End]:
        """List bkscaler's ends of its clients' connections."""
        process = self.process()
        return [] if process is None else [end for end in process.ends if end is end.link.server]

    def cancelled_s(self) -> float:
        """Say when a gRPC client that is still connected has last ended all its calls."""
        clients = map(self.client_of, self.client_ends())
        return max(
            (client.cancelled_s + client.latency_s for client in clients if isinstance(client, Builds)),
            default=-math.inf,
        )

    def builder_links(self) -> list[Link]:
        """List bkscaler's connections to builders."""
        process = self.process()
        if process is None:
            return []
        return [end.link for end in process.ends if isinstance(end.link.server.host, Builder)]

    def some_builder_is_mute(self) -> bool:
        """Whether a builder that somebody may be joined to, or is about to be, may say nothing for long."""
        mute = any(each.manner in MUTE for each in self._world.builders.containers.values())
        unreachable = bool(self.unreachable - {self._world.api.ip})
        return mute or unreachable or any(link.harmed for link in self.builder_links())

    def client_of(self, end: End) -> Client:
        """Give the client of bkscaler's end of a connection."""
        client: Client = self._world.clients[end.link.client.host.name]
        return client

    def unheard(self, client: Client) -> bool:
        """Whether a client may have been joined before it was heard, as whoever waits to be spoken to is."""
        grace_s: float = self._world.settings.probe_grace_s
        return grace_s <= client.latency_s + SPOKEN_S

    def may_be_joined(self, client: Client) -> bool:
        """Whether a client may be joined to a builder that has not named it, mute or out of reach."""
        since = client.transport.link.number
        dead = any(link.harmed and link.number > since for link in self.builder_links())
        return dead or (self.unheard(client) and self.some_builder_is_mute())

    def api_is_fine(self) -> bool:
        """Whether the API server answers, and is believed; older connections may be silent all the same."""
        api = self._world.api
        reached = api.up and api.ip not in self.unreachable
        return bool(reached and api.is_followed and api.trouble == Trouble() and self._world.identity.is_well)

    def is_deaf(self) -> bool:
        """Whether bkscaler has a connection to the API server that has died unnoticed."""
        process, ip = self.process(), self._world.api.ip
        return process is not None and any(
            e.link.silent and e.link.server.host.ip == ip for e in process.ends
        )

    def api_answers(self) -> bool:
        """Whether the API server does more than refuse everything."""
        api = self._world.api
        reached = api.up and api.ip not in self.unreachable
        return bool(reached and (api.trouble.code < 500 or api.trouble.only))

    def hopeless(self) -> set[str]:
        """
        Name, by uid, the first pod if it cannot come as things are: no node fits, or no image is to be had.

        (What is wrong with the others matters to nobody who waits for the first one.)
        """
        return {pod["metadata"]["uid"] for pod in self.pods() if ordinal_of(pod) == 0 and _is_hopeless(pod)}

    def _pod_changed(self, change: Change) -> None:
        """Take note of a pod that may come up, if only for a moment."""
        if not _is_hopeless(change.object):
            self.hopeful_s = self.now_s

    def ready_builder(self) -> Builder | None:
        """
        Give the builder that clients are to be given; None when it cannot serve them, or there is none.

        It is the first one that is asked for and seems ready. (That bkscaler tries no other, if somebody has
        scaled beyond one and the first does not serve, is its way.)
        """
        asks = self._world.settings.readiness != "pod"
        for pod in sorted(self.pods(), key=lambda pod: str(pod["metadata"]["name"])):
            meta = pod["metadata"]
            found: Builder | None = self._world.builders.containers.get(meta["name"])
            ordinal = ordinal_of(pod)
            if "deletionTimestamp" in meta or ordinal is None or ordinal >= self.replicas():
                continue
            if found is None or found.uid != meta["uid"]:
                if asks:
                    return None
                continue
            if found.ports or asks:
                serves = found.ports and found.manner is Manner.SERVES and found.ip not in self.unreachable
                return found if serves else None
        return None


def _is_hopeless(pod: dict[str, Any]) -> bool:
    status = pod["status"]
    unfit = any(each.get("reason") == "Unschedulable" for each in status.get("conditions", ()))
    states = [each["state"].get("waiting", {}) for each in status.get("containerStatuses", ())]
    unpulled = any(each.get("reason") in {"ErrImagePull", "ImagePullBackOff"} for each in states)
    return (unfit or unpulled) and "deletionTimestamp" not in pod["metadata"]
