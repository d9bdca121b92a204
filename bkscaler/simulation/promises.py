"""
What each client is promised while it is connected, and the process when it is told to end.

Looked at about every second, as by :mod:`bkscaler.simulation.bounds`: that a held gRPC client hears in time
that a server is there, that PINGs are answered, that who is turned away is told why, that a half-close is
answered by the other one, that no more connections are served than may be, that a builder that says nothing
is let go, that nothing heaps up in bkscaler, and that draining ends.
"""

from __future__ import annotations

from typing import Any

from bkscaler.observability.outcomes import Outcome
from bkscaler.simulation.callers import Builds
from bkscaler.simulation.clients import Client
from bkscaler.simulation.links import End
from bkscaler.simulation.process import Process
from bkscaler.simulation.serving import Manner

SOON_S = 2.0
"""How long may take what is done at once."""
CLOSED_S = 5.0
"""How long a connection may last that both sides have finished, and a process whose clients have gone."""
TRY_S = 10.0
"""How long one try to reach a builder may take: a dial, and its first words."""
CUT_S = 5.0
"""How long draining may go on after the drain timeout."""
HEAP_BYTES = 3 * 64 * 1024
"""What may wait in bkscaler to be written to one peer: a full buffer, and what one read adds."""


class Promises:
    """
    Looks after what is promised.

    :param judge: whom failures are told, and who knows the world.
    """

    def __init__(self, judge: Any) -> None:
        self._judge = judge
        self._truth = judge.truth
        self._settings = judge.world.settings
        self._done_s: dict[str, float] = {}
        self._gone_s: dict[str, float] = {}

    def look(self, now_s: float) -> None:
        """
        Look.

        :param now_s: up to when everything stays as it is.
        """
        process = self._truth.process()
        if process is None:
            return
        ends = self._truth.client_ends()
        self._judge_number(ends)
        self._judge_tries(ends, now_s)
        if process.draining:
            self._judge_draining(process, ends, now_s)
        for end in process.ends:
            if len(end.unsent) > HEAP_BYTES:
                self._judge.fail(f"{len(end.unsent)} bytes wait for {end.link}")
        for end in ends:
            client = self._truth.client_of(end)
            if not end.link.harmed and client.open:
                self._judge_client(client, now_s)
            elif not end.link.harmed:
                self._judge_gone(client, now_s)

    def _judge_number(self, ends: list[End]) -> None:
        """Not more are served than may be."""
        outcomes = self._judge.outcomes
        clients = [self._truth.client_of(end) for end in ends]
        served = [each for each in clients if outcomes.get(each.peer) is not Outcome.OVER_LIMIT]
        if len(served) > self._settings.max_connections:
            self._judge.fail(f"{len(served)} clients are connected")

    def _judge_tries(self, ends: list[End], now_s: float) -> None:
        """A builder that is told nothing is let go in time, unless it has a client that says nothing."""
        old_s, linked_s = now_s - TRY_S - SOON_S, self._judge.linked_s
        told_nothing = [link for link in self._truth.builder_links() if not link.client.written]
        tries = [link for link in told_nothing if linked_s[link] < old_s]
        if len(tries) > sum(not end.read_bytes for end in ends):
            self._judge.fail(f"{tries[0]} is kept, and told nothing")

    def _judge_draining(self, process: Process, ends: list[End], now_s: float) -> None:
        """Draining ends when the last client has left, or when its time is over."""
        since_s = self._judge.draining_since_s
        limit_s = self._settings.drain_timeout_s + CUT_S + SOON_S
        if now_s > since_s + limit_s:
            self._judge.fail(f"{process.name} still runs {now_s - since_s:.1f} s after it was told to end")
        if not ends and now_s > max(since_s, self._judge.left_s) + CLOSED_S:
            self._judge.fail(f"{process.name} still runs, and has no clients")

    def _judge_client(self, client: Client, now_s: float) -> None:
        outcome = self._judge.outcomes.get(client.peer)
        if outcome is not None:
            self._judge_told(client, outcome, now_s)
        elif client.ending == "finished":
            self._judge_finished(client, now_s)
        elif isinstance(client, Builds) and not client.ending and client.name not in self._judge.served_from:
            self._judge_held(client, now_s)

    def _judge_gone(self, client: Client, now_s: float) -> None:
        """Who resets its connection is heard of, and so is a gRPC client that closes it."""
        held = client.name not in self._judge.served_from and not self._truth.some_builder_is_mute()
        if client.ending != "reset" and not (isinstance(client, Builds) and held):
            self._gone_s.pop(client.name, None)
            return
        if now_s > self._gone_s.setdefault(client.name, now_s) + SOON_S:
            self._judge.fail(f"{client} has left, and bkscaler does not notice")

    def _judge_told(self, client: Client, outcome: Outcome, now_s: float) -> None:
        """Who gets no builder is told why."""
        since_s = max(self._judge.ended_s[client.peer], client.asked_s)
        told = self._judge.due_words[client.peer] and isinstance(client, Builds) and not client.ending
        if told and not client.complete and now_s > since_s + SOON_S:
            self._judge.fail(f"{client} was not told why it ended as {outcome.value}")
        elif isinstance(client, Builds) and told and not client.acknowledged and now_s > since_s + SOON_S:
            self._judge.fail(f"the SETTINGS of {client}, which was turned away, are not acknowledged")

    def _judge_finished(self, client: Client, now_s: float) -> None:
        """The builder finishes after a client that has got everything; both ends close."""
        ends = self._judge.served_from.get(client.name, [])
        well = ends and not any(end.link.harmed or end.host.manner is not Manner.SERVES for end in ends)
        if not well or not client.complete:
            self._done_s.pop(client.name, None)
        elif now_s > self._done_s.setdefault(client.name, now_s) + CLOSED_S:
            self._judge.fail(f"{client} has finished and got everything, and is still connected")

    def _judge_held(self, client: Builds, now_s: float) -> None:
        """A held gRPC client breaks off after 20 s without a word, and when its PING is not answered."""
        if self._truth.may_be_joined(client):
            return
        limit_s = SOON_S + self._settings.hold_after_s
        if client.spoke_s is None or self._judge.dialled_s >= client.spoke_s - SOON_S:
            limit_s = max(limit_s, SOON_S + TRY_S)
        if client.spoke_s is not None and not client.heard and now_s > client.spoke_s + limit_s:
            self._judge.fail(f"{client} has heard nothing for {now_s - client.spoke_s:.0f} s")
        if client.pinged_s is not None and now_s > client.pinged_s + limit_s:
            self._judge.fail(f"{client} has got no answer to its PING")
