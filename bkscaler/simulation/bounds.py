"""
That nothing lasts too long: about every second of virtual time, what has lasted is compared with its bound.

Where nothing has gone wrong in a world the bounds are tight. After trouble they are what the longest of
bkscaler's own limits add up to: a watch that was silent, back-offs at their longest.
"""

from __future__ import annotations

from typing import Any

from bkscaler.frontend.session import LINGER_S
from bkscaler.simulation.clients import Client, Garbage
from bkscaler.simulation.links import End
from bkscaler.simulation.names import TTL_S
from bkscaler.simulation.promises import Promises

LOOK_EVERY_S = 1.0
"""How often things are compared, about."""
STARTING_S = 0.1
"""Until then bkscaler is not expected to be in touch with anything."""
REQUESTS_PER_LOOK = 80
"""More requests in so short a time are a loop that nobody stops."""
DIALS_PER_LOOK = 12
"""The same of dials of builders, for each client."""
CALM_S = 4.0
"""How late anything may be when nothing has gone wrong."""
LATE_S = 12.0
"""The same after other trouble than with the API server."""
SLEEP_LATE_S = 120.0
"""How late the builder may fall asleep after trouble with the API server."""
WAKE_LATE_S = 30.0
"""How late it may be woken, or a client be joined, after that."""
DEAD_FOR_S = 35.0
"""How long connections that have died unnoticed are kept for further requests, and waits may go on."""
END_LATE_S = 5.0
"""How late a client may be told that its time is over."""


class Bounds:
    """
    Compares what lasts with what may last.

    :param judge: whom failures are told, and who knows the world.
    """

    def __init__(self, judge: Any) -> None:
        self._judge = judge
        self._truth = judge.truth
        self._settings = judge.world.settings
        self._looked_s = -LOOK_EVERY_S
        self._promises = Promises(judge)
        self._requests = 0
        self._clients = self._accepted = 0
        self._hopeless: set[str] = set()
        self._restless_s = self._unhealthy_s = self._up_s = self._unready_s = self._hopeful_s = 0.0

    def look(self, now_s: float) -> None:
        """
        Compare, if it is time.

        :param now_s: up to when everything stays as it is: the time of the next thing to happen.
        """
        if now_s < self._looked_s + LOOK_EVERY_S:
            return
        self._looked_s = now_s
        self._judge_loops()
        self._note(now_s)
        self._judge_sleep(now_s)
        self._promises.look(now_s)
        for end in self._truth.client_ends():
            self._judge_client(end, self._truth.client_of(end), now_s)

    def _judge_loops(self) -> None:
        """Nobody is asked or dialled again and again."""
        api, dials = self._judge.world.api, self._judge.dials
        requests, self._requests = api.requests - self._requests, api.requests
        if max(requests, dials["api"]) > REQUESTS_PER_LOOK:
            self._judge.fail(f"{requests} requests at once, and {dials['api']} dials")
        accepted, self._accepted = len(self._judge.accepted) - self._accepted, len(self._judge.accepted)
        clients, self._clients = self._clients + accepted, len(self._truth.client_ends())
        if dials["builders"] > DIALS_PER_LOOK * (1 + clients):
            self._judge.fail(f"{dials['builders']} dials of builders at once")
        dials.clear()

    def _note(self, now_s: float) -> None:
        """Take note since when things have been as they are."""
        truth, process = self._truth, self._truth.process()
        exists = truth.set_is_well()
        if truth.stateful_set() is None:
            self._judge.missing_s = now_s
        healthy = process is not None and not process.draining and exists and truth.api_is_fine()
        if not healthy and now_s > STARTING_S:
            self._unhealthy_s = now_s
            truth.trouble_s = now_s
        if not self._judge.world.identity.is_well:
            truth.refused_s = now_s
        if not truth.api_is_fine() or self._judge.world.api.is_late:
            truth.api_trouble_s = now_s
        ends = truth.client_ends()
        if not healthy or any(map(self._judge.wants, ends)):
            self._restless_s = now_s
        self._restless_s = max(self._restless_s, truth.cancelled_s())
        before, self._hopeless = self._hopeless, truth.hopeless()
        if not healthy or not self._hopeless or self._hopeless != before:
            self._hopeful_s = now_s
        if truth.replicas() > 0:
            self._up_s = now_s
        if truth.ready_builder() is None:
            self._unready_s = now_s

    def _judge_sleep(self, now_s: float) -> None:
        """Without clients, and with an API that answers, the builder is asleep in time."""
        restless_s = max(self._restless_s, self._truth.trouble_s, self._judge.wanted_s)
        limit_s = self._settings.idle_timeout_s + self._late_s(SLEEP_LATE_S, restless_s, SLEEP_LATE_S)
        if self._truth.replicas() > 0 and now_s - restless_s > limit_s:
            self._judge.fail(f"still awake {now_s - restless_s:.0f} s after anybody needed it")

    def _late_s(self, most_s: float, since_s: float, after_s: float) -> float:
        """
        Say how late a thing may be.

        :param most_s: how late when there was trouble with the API server.
        :param since_s: when it became due.
        :param after_s: how long such trouble lasts at most.
        """
        if self._truth.calm:
            return CALM_S
        return most_s if since_s < self._truth.api_trouble_s + after_s else LATE_S

    def _judge_client(self, end: End, client: Client, now_s: float) -> None:
        """A client that waits is served in time, or told in time that it is not."""
        outcome = self._judge.outcomes.get(client.peer)
        served = client.name in self._judge.served_from
        if outcome is not None:
            late_s = now_s - self._judge.ended_s[client.peer]
            if late_s > LINGER_S + END_LATE_S and not end.link.harmed:
                self._judge.fail(f"{client} is still there after its end as {outcome.value}")
            return
        if served or not client.wants or end.link.harmed or isinstance(client, Garbage):
            return
        if self._truth.unheard(client) and any(link.harmed for link in self._truth.builder_links()):
            return  # it may have been joined before it spoke, to somebody who does not answer any more
        if now_s - client.asked_s > self._settings.ready_wait_timeout_s + END_LATE_S:
            self._judge.fail(f"{client} has waited for {now_s - client.asked_s:.0f} s and was not told")
        late_s = self._late_s(WAKE_LATE_S, client.asked_s, DEAD_FOR_S)
        if now_s - max(client.asked_s, self._hopeful_s) > self._settings.give_up_after_s + END_LATE_S:
            self._judge.fail(f"{client} waits for what cannot come")
        since_s = max(client.asked_s, self._unhealthy_s, self._truth.trouble_s)
        if now_s - max(since_s, self._up_s) > late_s:
            self._judge.fail(f"{client} waits, and nothing is woken for it")
        cached_s = TTL_S if self._settings.target_address == "dns" else 0.0
        if now_s - max(since_s, self._unready_s) > late_s + cached_s:
            self._judge.fail(f"{client} waits, and a builder is ready")
