"""
That nothing lasts too long: about every second of virtual time, what has lasted is compared with its bound.

Where nothing has gone wrong in a world the bounds are tight, so that what comes late is seen although some
other timer makes it come. After trouble they are what the longest of bkscaler's own limits add up to: a watch
that was silent, back-offs at their longest. All of them are written out here: a limit that the product gives
would grow with a mistake in it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from bkscaler.simulation.builders import Builder
from bkscaler.simulation.callers import Builds
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


class Lateness(NamedTuple):
    """
    How late a thing may be, in seconds.

    :param calm: when nothing has gone wrong.
    :param other: after other trouble than with the API server.
    :param api: after that.
    """

    calm: float
    other: float
    api: float


SLEEP = Lateness(calm=0.5, other=4.0, api=120.0)
"""How late the builder may fall asleep."""
WAKE = Lateness(calm=0.5, other=4.0, api=30.0)
"""How late it may be woken."""
JOIN = Lateness(calm=2.0, other=2.5, api=20.0)
"""How late a client may be joined to a builder that is ready, when all others answer a dial at once."""
SPARED_S = 1.5
"""The same when all that it has waited for is a controller that lagged, and bkscaler is in touch.

The moment in which that ends is known to a second only."""
JOIN_MUTE_S = 12.0
"""The same when dials were lost, or builders were mute: each try may take its time then."""
SLEEP_AFTER_S = 120.0
"""How long trouble with the API server delays a scale-down."""
LINGER_S = 60.0
"""How long a client that was told why, or wants nothing any more, may stay."""
DEAD_FOR_S = 35.0
"""
How long trouble with the API server that is over may still delay what is asked of it: a connection that has
died unnoticed takes its time, and so does the wait after it.
"""
MISSED_S = 12.0
"""After how long whoever waits is told that there is no StatefulSet."""
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
        self._ready: Builder | None = None
        self._aimless_s: dict[str, float] = {}
        self._mute_s = -math.inf
        self._restless_s = self._unhealthy_s = self._unmissed_s = self._up_s = self._unready_s = 0.0
        self._behind_s = 0.0

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
        self._judge.knowing.look()
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
        if truth.stateful_set() is None or self._judge.world.api.trouble.stale:
            self._judge.missing_s = now_s
        if process is None or process.draining or truth.stateful_set() is not None or not truth.api_is_fine():
            self._unmissed_s = now_s
        healthy = process is not None and not process.draining and exists and truth.api_is_fine()
        if not healthy and now_s > STARTING_S:
            self._unhealthy_s = now_s
            truth.trouble_s = truth.disturbed_s = now_s
        if not self._judge.world.identity.is_well:
            truth.refused_s = now_s
        if not truth.api_is_fine() or self._judge.world.api.is_late:
            truth.api_trouble_s = now_s
        if truth.api_answers():
            truth.answered_s = now_s
        ends = truth.client_ends()
        if not healthy or any(map(self._judge.wants, ends)):
            self._restless_s = now_s
        self._restless_s = max(self._restless_s, truth.cancelled_s())
        hopeless, self._hopeless = self._hopeless, truth.hopeless()
        if not healthy or not self._hopeless or self._hopeless != hopeless:
            truth.hopeful_s = now_s
        if truth.replicas() > 0:
            self._up_s = now_s
        before, self._ready = self._ready, truth.ready_builder()
        if self._ready is None or self._ready is not before:
            self._unready_s = now_s
        if self._judge.world.cluster.controller.is_behind:
            self._behind_s = now_s
        self._mute_s = now_s if truth.some_builder_is_mute() else max(self._mute_s, truth.lost_dial_s)

    def _judge_sleep(self, now_s: float) -> None:
        """Without clients, and with an API that answers, the builder is asleep in time."""
        judge = self._judge
        restless_s = max(self._restless_s, self._truth.trouble_s, judge.wanted_s, judge.demand_s, judge.run_s)
        limit_s = self._settings.idle_timeout_s + self._late_s(SLEEP, restless_s, SLEEP_AFTER_S)
        if self._truth.replicas() > 0 and now_s - restless_s > limit_s:
            self._judge.fail(f"still awake {now_s - restless_s:.0f} s after anybody needed it")

    def _late_s(self, late: Lateness, since_s: float, after_s: float) -> float:
        """
        Say how late a thing may be.

        :param late: its bounds.
        :param since_s: when it became due.
        :param after_s: how long trouble with the API server lasts at most.
        """
        if self._truth.calm:
            return late.calm
        return late.api if since_s < self._truth.api_trouble_s + after_s else late.other

    def _join_late_s(self, client: Client, since_s: float) -> float:
        """Say how late a client may be joined to a builder that is ready."""
        late_s = self._late_s(JOIN, client.asked_s, DEAD_FOR_S)
        if since_s == self._behind_s > self._truth.disturbed_s + JOIN.other and self._judge.is_well:
            late_s = SPARED_S
        if since_s < self._mute_s + JOIN_MUTE_S:
            late_s = max(late_s, JOIN_MUTE_S)
        return late_s + (TTL_S if self._settings.target_address == "dns" else 0.0)

    def _judge_client(self, end: End, client: Client, now_s: float) -> None:
        """A client that waits is served in time, or told in time that it is not."""
        outcome = self._judge.outcomes.get(client.peer)
        served = client.name in self._judge.served_from
        if outcome is not None:
            late_s = now_s - self._judge.ended_s[client.peer]
            if late_s > LINGER_S + END_LATE_S and not end.link.harmed:
                self._judge.fail(f"{client} is still there after its end as {outcome.value}")
            return
        self._judge_aimless(end, client, now_s)
        if isinstance(client, Garbage):
            self._judge_stranger(end, client, now_s)
            return
        if served or not client.wants or end.link.harmed:
            return
        if self._truth.may_be_joined(client):
            return
        if now_s - client.asked_s > self._settings.ready_wait_timeout_s + END_LATE_S:
            self._judge.fail(f"{client} has waited for {now_s - client.asked_s:.0f} s and was not told")
        heard_s = self._truth.api_trouble_s + DEAD_FOR_S
        hopeless_s = now_s - max(client.asked_s, self._truth.hopeful_s, heard_s)
        if hopeless_s > self._settings.give_up_after_s + END_LATE_S:
            self._judge.fail(f"{client} waits for what cannot come")
        if now_s - max(client.asked_s, self._unmissed_s, heard_s) > MISSED_S:
            self._judge.fail(f"{client} waits for a set that there is not")
        self._judge_wait(client, client.asked_s + client.latency_s, now_s)

    def _judge_wait(self, client: Client, since_s: float, now_s: float) -> None:
        """For a client that has waited since then a builder is woken; it is joined to one that is ready."""
        self._judge_wake(client, since_s, now_s)
        since_s = max(since_s, self._unhealthy_s, self._truth.trouble_s, self._unready_s, self._behind_s)
        if now_s - since_s > self._join_late_s(client, since_s):
            self._judge.fail(f"{client} waits, and a builder is ready")

    def _judge_wake(self, client: Client, since_s: float, now_s: float) -> None:
        since_s = max(since_s, self._unhealthy_s, self._truth.trouble_s, self._up_s)
        if now_s - since_s > self._late_s(WAKE, client.asked_s, DEAD_FOR_S):
            self._judge.fail(f"{client} waits, and nothing is woken for it")

    def _judge_stranger(self, end: End, client: Garbage, now_s: float) -> None:
        """Who waits to be spoken to, or says what means nothing, is no health check for ever."""
        answered = client.received or self._truth.some_builder_is_mute()
        if not client.open or client.ending or end.link.harmed or answered:
            return
        grace_s = self._settings.probe_grace_s + client.latency_s
        (self._judge_wake if client.words else self._judge_wait)(
            client, self._judge.linked_s[end.link] + grace_s, now_s
        )

    def _judge_aimless(self, end: End, client: Client, now_s: float) -> None:
        """A held client that has cancelled all its calls, and makes no other, is let go some time."""
        unheard = self._truth.unheard(client) or self._truth.some_builder_is_mute()
        held = client.name not in self._judge.served_from and not unheard
        if not isinstance(client, Builds) or not held or not client.wants_nothing or end.link.harmed:
            self._aimless_s.pop(client.name, None)
            return
        since_s = max(self._aimless_s.setdefault(client.name, now_s), client.cancelled_s)
        if client.open and now_s > since_s + LINGER_S + END_LATE_S:
            self._judge.fail(f"{client} wants nothing any more, and is still held")
