"""
What must hold in every world. Looks from outside: at the network, the cluster, the log.

This module judges each thing in the moment in which it happens: a read, a line of the log, the end of a
connection; :mod:`~bkscaler.simulation.scalings` does so with each change of the replicas, and
:mod:`~bkscaler.simulation.dialling` with each dial. That nothing takes too long is for
:mod:`~bkscaler.simulation.bounds`, whether an end has a reason for :mod:`~bkscaler.simulation.reasons`, and
whether it is logged as it was for :mod:`~bkscaler.simulation.records`.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from bkscaler.observability.outcomes import Outcome
from bkscaler.simulation.builders import Builder
from bkscaler.simulation.callers import Builds
from bkscaler.simulation.clients import Client
from bkscaler.simulation.dialling import HEARD_S, Dialling
from bkscaler.simulation.knowing import Knowing
from bkscaler.simulation.lines import Lines
from bkscaler.simulation.links import End, Link
from bkscaler.simulation.network import Host
from bkscaler.simulation.process import Process
from bkscaler.simulation.reasons import unexplained_end, unexplained_outcome
from bkscaler.simulation.records import due_words, wrong_record
from bkscaler.simulation.scalings import IN_FLIGHT_LATE_S, Scalings
from bkscaler.simulation.truth import Truth

HELD_BYTES = 2 * 16 * 1024
"""What may be held of a client that speaks no HTTP/2."""
HELD_HTTP2_BYTES = 65_535 + 65_536 + 64 * 1024
"""The same of one that does: its DATA, its other frames, and one read."""
JOINING_S = 0.5
"""How long after it has taken its calls back a client may be joined: it may not have been heard of."""
ROUNDING_S = 0.002
NO_DEMAND = (Outcome.CANCELLED_WHILE_HELD, Outcome.PROBE, Outcome.OVER_LIMIT, Outcome.PROTOCOL_ERROR)
"""Ends that came after the demand had ended, or without any, or possibly so."""


class Judge:
    """
    Judges one world, from now on.

    :param world: the world.
    :ivar truth: how things stand.
    :ivar failures: what did not hold, in order; empty is what everybody hopes for.
    :ivar outcomes: how connections have ended, by the client's address.
    :ivar ended_s: when.
    :ivar accepted: every connection that bkscaler has accepted, with the process that did.
    :ivar due_words: what a client is to be told, any of these; empty when it is told nothing.
    :ivar linked_s: when each connection of bkscaler's was made, but for those to the API server.
    :ivar served_from: a client's connections at builders.
    :ivar builder_links: every connection that bkscaler has made to a builder, with when it ended.
    :ivar dials: how often bkscaler has dialled ``api`` and ``builders`` since they were last counted.
    :ivar dialled_s: when it last dialled a builder.
    :ivar missing_s: when the StatefulSet was last missing, or may have seemed to be.
    :ivar deleted_s: when it was last deleted.
    :ivar left_s: when a client was last connected.
    :ivar run_s: when the process was started.
    :ivar demand_s: when a demand last ended with its client's connection, or with its wait.
    :ivar wanted_s: when one was last that wanted a builder.
    :ivar draining_since_s: when the process was told to end.
    """

    def __init__(self, world: Any) -> None:
        self.world = world
        self.truth = Truth(world)
        self.failures: list[str] = []
        self.outcomes: dict[str, Outcome] = {}
        self.ended_s: dict[str, float] = {}
        self.accepted: dict[str, tuple[Link, Process]] = {}
        self.due_words: dict[str, frozenset[str]] = {}
        self.linked_s: dict[Link, float] = {}
        self.served_from: dict[str, list[End]] = {}
        self.draining_since_s = math.inf
        self.missing_s = self.deleted_s = self.dialled_s = -math.inf
        self.dials: Counter[str] = Counter()
        self.builder_links: dict[Link, float] = {}
        self.run_s = self.demand_s = self.wanted_s = self.left_s = 0.0
        network = world.network
        network.on_dial, network.on_link, network.on_end = self._dialled, self._linked, self._link_ended
        world.api.asking.on_fault = self.fail
        world.builders.on_served = self._served
        self._scalings = Scalings(self)
        self._dialling = Dialling(self, self._scalings)
        self.knowing = Knowing(self)
        world.api.on_restored = self._restored

    def fail(self, words: str) -> None:
        """Take note that something did not hold."""
        self.world.say(f"FAILED: {words}")
        self.failures.append(words)

    def started(self) -> None:
        """A process has been started: it knows nothing of the demand before."""
        self.run_s = self.truth.now_s
        self.draining_since_s = math.inf
        self._dialling.started()

    def _restored(self) -> None:
        """An API server that was restored counts anew, and what was told of it need not be so any more."""
        self._dialling.restored()
        self.knowing.forget()

    def process_over(self, process: Process, how: str) -> None:
        """A process that has exited has left nothing behind, and has told how each connection ended."""
        for each in process.leftovers:
            self.fail(f"{process.name} has left behind: {each}")
        for peer, (_, acceptor) in self.accepted.items():
            if acceptor is process and how == "exited" and peer not in self.outcomes:
                self.fail(f"{process.name} has not told how {self.world.by_peer[peer]} ended")

    def heard(self, event: dict[str, Any]) -> None:
        """Judge a line of the log."""
        failure = event.get("log_failure")
        if failure is not None:
            self.fail(f"unexpected: {failure.getErrorMessage()}\n{failure.getTraceback()}")
        elif event.get("event") == "connection_ended":
            self._ended(event["peer"], Outcome(event["outcome"]), event)

    def _ended(self, peer: str, outcome: Outcome, told: dict[str, Any]) -> None:
        client = self.world.by_peer.get(peer)
        if peer in self.outcomes or client is None:
            self.fail(f"{peer} has ended twice, or never begun: {outcome.value}")
            return
        self.outcomes[peer] = outcome
        self.ended_s[peer] = self.truth.now_s
        if outcome not in NO_DEMAND and not self._has_cancelled(client):
            self.demand_s = self.truth.now_s
        self.due_words[peer] = due_words(self, client, outcome, told)
        wrong = unexplained_outcome(self, client, outcome) or wrong_record(self, client, outcome, told)
        if wrong:
            self.fail(f"{client} ended as {outcome.value}, but {wrong}")

    def _dialled(self, host: Host, ip: str) -> None:
        """Count what bkscaler dials, and judge what it does of builders."""
        if not isinstance(host, Process):
            return
        if ip == self.world.api.ip:
            self.dials["api"] += 1
            return
        self.dialled_s = self.truth.now_s
        self.dials["builders"] += 1
        self.world.say(f"{host.name} dials {ip}")
        self._dialling.dialled(ip)

    @property
    def is_well(self) -> bool:
        """Whether bkscaler is in touch with the API server, and by no connection that has died unnoticed."""
        if any(link.silent and link.client.connected for link in self.world.api.links()):
            return False
        run_s, now_s = self.run_s + HEARD_S, self.truth.now_s
        return now_s > max(self.truth.api_trouble_s + IN_FLIGHT_LATE_S, run_s)

    def _linked(self, link: Link) -> None:
        """Follow what concerns bkscaler."""
        here, there = link.client.host, link.server.host
        if isinstance(there, Process):
            client = self.world.clients[here.name]
            peer = f"{link.client.address.host}:{link.client.address.port}"
            self.world.by_peer[peer] = client
            self.accepted[peer] = link, there
            self.linked_s[link] = self.truth.now_s
            if there.draining and self.truth.now_s > self.draining_since_s:
                self.fail(f"{there.name} accepts {client}, although it was told to end")
            link.server.on_data = lambda data: self._read(link, client)
        elif isinstance(here, Process) and isinstance(there, Builder):
            self.builder_links[link] = math.inf
            self.linked_s[link] = self.truth.now_s
        elif isinstance(here, Process):
            lines = Lines()
            link.client.on_data = lambda data: self._told(here, lines, data)

    def _told(self, process: Process, lines: Lines, data: bytes) -> None:
        """
        Take note of what the API server tells, by one of its connections. One that was restored from a
        backup need not be believed at first.
        """
        self.knowing.before(process)
        for line in lines.feed(data):
            if self.world.api.is_followed:
                self._dialling.told(line)
                self._scalings.told(line)
                self.knowing.told(line)
            else:
                self.knowing.doubted(line)

    def _link_ended(self, link: Link, end: End) -> None:
        if end is link.server and isinstance(end.host, Process):
            self.left_s = self.truth.now_s
            if self._has_wanted(end):
                self.wanted_s = self.truth.now_s
        elif link in self.builder_links and end is link.client:
            self.builder_links[link] = self.truth.now_s

    def _read(self, link: Link, client: Client) -> None:
        """Not more is held of a client than the bound."""
        limit = HELD_HTTP2_BYTES if isinstance(client, Builds) else HELD_BYTES
        if link.server.read_bytes > limit and not self.truth.builder_links():
            self.fail(f"{link.server.read_bytes} bytes are held of {client}")

    def _served(self, who: str, builder: Builder, end: End) -> None:
        client = self.world.clients.get(who)
        self.world.say(f"{builder.name} serves {who}")
        if client is None:
            return
        self.served_from.setdefault(who, []).append(end)
        if self._unasked(builder, end):
            self.fail(f"{client} is joined to {builder.name}, which was not asked whether it serves")
        late_s = math.inf if client.transport.link.harmed else JOINING_S
        aimless = isinstance(client, Builds) and client.wants_nothing
        if aimless and self.linked_s[end.link] > client.cancelled_s + late_s:
            self.fail(f"{client} is joined, although it wants nothing any more")

    def _unasked(self, builder: Builder, end: End) -> bool:
        """Whether no builder was asked for its health at an address; a new one may have got it unnoticed."""
        settings = self.world.settings
        asks = settings.readiness == "grpc" and settings.target_address != "dns"
        return asks and (end.peer.host, builder.ip) not in self.world.builders.checked

    def client_ended(self, client: Client) -> None:
        """Judge the end of a connection as its client sees it."""
        self.world.say(
            f"{client} ended, {client.ending or 'not by itself'}, {len(client.received)} bytes back"
        )
        wrong = client.wrong or unexplained_end(self, client)
        if wrong:
            self.fail(wrong)

    def wants(self, end: End) -> bool:
        """Whether the client at bkscaler's end of a connection may want a builder, or have one."""
        client = self.truth.client_of(end)
        aimless = self._has_cancelled(client) and not self.truth.may_be_joined(client)
        return client.peer not in self.outcomes and not aimless and self._has_wanted(end)

    def _has_cancelled(self, client: Client) -> bool:
        """Whether a client is held that has taken all its calls back, and was heard to."""
        if not isinstance(client, Builds) or client.transport.link.harmed or self.truth.unheard(client):
            return False
        return client.wants_nothing and client.name not in self.served_from

    def _has_wanted(self, end: End) -> bool:
        """Whether a client has spoken, or been there for longer than a health check."""
        grace_s = self.world.settings.probe_grace_s - ROUNDING_S
        return end.read_bytes > 0 or self.truth.now_s >= self.linked_s[end.link] + grace_s
