"""
What goes wrong in a soak: each fault is a coroutine that begins it, lasts as long as it, and mends it.

Faults tell :class:`~bkscaler.soak.troubles.Troubles` what they excuse. Imported by ``soak.course``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from twisted.internet.task import deferLater

from bkscaler.sandbox.faults import Fault, FaultKind
from bkscaler.soak.crowd import Client, Crowd
from bkscaler.soak.errands import Ending, lasting, waiting
from bkscaler.soak.judge import Judge
from bkscaler.soak.stage import Stage

MANY = 1000
"""How many clients come and go at once."""
TOO_MANY = 40
"""How many more than the limit allows come."""
SERVED_LIMIT_S = 30.0
AT_ONCE = 100
"""How many of them dial in one turn of the reactor."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """
    What faults work on.

    :param stage: the cluster and bkscaler.
    :param crowd: the clients.
    :param judge: knows how things stand, and is told what is excused.
    :param chance: decides.
    :param reactor: tells time.
    """

    stage: Stage
    crowd: Crowd
    judge: Judge
    chance: Random
    reactor: Any

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await deferLater(self.reactor, seconds)

    async def during(self, what: str, over: Callable[[], object]) -> None:
        """
        Let something be wrong for some seconds.

        :param what: in words.
        :param over: ends it.
        """
        self.judge.troubles.begin(what)
        try:
            await self.wait(1.5 + 3.5 * self.chance.random())
        finally:
            over()
            self.judge.troubles.end(what, self.reactor.seconds())

    async def many(self, make: Callable[[], Client], count: int) -> list[Client]:
        """Let many clients come, as fast as can be."""
        clients: list[Client] = []
        while len(clients) < count:
            clients += [make() for _ in range(min(AT_ONCE, count - len(clients)))]
            await self.wait(0)
        return clients

    async def served(self, clients: Sequence[Client], count: int) -> None:
        """Wait until so many bytes have come back to each client that is still there."""
        await self.stage.until(
            lambda: all(client.view.over or client.view.received >= count for client in clients),
            f"not everybody of {len(clients)} is served",
            SERVED_LIMIT_S,
        )


async def kill_builder(field: Field) -> None:
    """The builder is killed; the kubelet starts it again after some seconds."""
    for process in field.stage.runner.running:
        field.judge.troubles.builder_dies(field.reactor.seconds())
        process.kill()


async def delete_pod(field: Field) -> None:
    """Somebody deletes the pod; another takes its place."""
    for pod in field.stage.cluster.pods():
        field.judge.troubles.builder_dies(field.reactor.seconds())
        field.stage.cluster.delete_pod(pod["metadata"]["name"], 0)


async def close_api(field: Field) -> None:
    """The API server refuses connections, and those that it had are cut."""
    await field.stage.gate.close()
    await field.during("the API is away", field.stage.gate.open)


async def stop_api(field: Field) -> None:
    """The API server is stopped: it accepts connections and says nothing."""
    field.stage.gate.block()
    await field.during("the API is stopped", field.stage.gate.unblock)


async def api_errors(field: Field) -> None:
    """Some requests are answered with an error, or not at all."""
    chance, root = field.chance, field.stage.cluster.root
    retry_after_s = chance.choice((None, 1))
    kinds = [Fault(code=code, text="no\n", retry_after_s=retry_after_s) for code in (429, 500, 503)]
    kinds.append(Fault(kind=FaultKind.CUT))
    share = chance.choice((0.5, 0.9))
    root.faults = lambda method, uri: chance.choice(kinds) if chance.random() < share else None
    field.stage.gate.cut()
    await field.during("the API answers with errors", field.stage.mend)


async def forget_history(field: Field) -> None:
    """The API server forgets what happened before, and cuts its watches: they are told 410."""
    field.stage.cluster.state.compact()
    field.stage.gate.cut()
    field.judge.troubles.end("history is forgotten", field.reactor.seconds())


async def fill_limit(field: Field) -> None:
    """More clients come than may; those who are one too many are closed, the others go on."""
    limit, over = field.stage.settings.max_connections, field.judge.ledger.outcomes
    before = over["over_limit"]
    field.crowd.cease()
    below = await field.many(lambda: field.crowd.send(lasting(4.0)), max(0, limit - len(field.crowd)))
    await field.served(below, 20)
    above = await field.many(lambda: field.crowd.send(waiting()), limit - len(field.crowd) + TOO_MANY)
    await field.wait(1.0)
    if over["over_limit"] == before:
        field.judge.fail("the limit was filled, and nobody was turned away")
    for client in above:
        client.leave()
    await field.served(below, 40)


async def all_leave(field: Field) -> None:
    """Many clients come, are served, and leave in one moment, half of them with a reset."""
    field.crowd.cease()
    clients = await field.many(lambda: field.crowd.send(waiting()), MANY)
    await field.served(clients, 20)
    for client in clients:
        client.leave(field.chance.choice((Ending.HANG_UP, Ending.RESET)))


async def flit(field: Field) -> None:
    """Many clients come and leave at once, whether they have been heard or not."""
    field.crowd.cease()
    clients = await field.many(lambda: field.crowd.send(waiting()), MANY)
    for client in clients:
        if client.connected:
            client.leave(field.chance.choice((Ending.HANG_UP, Ending.RESET)))


Act = Callable[[Field], Awaitable[None]]
FAULTS: dict[str, Act] = {
    "the limit is filled": fill_limit,
    "1,000 leave at once": all_leave,
    "the builder is killed": kill_builder,
    "the API is away": close_api,
    "the API is stopped": stop_api,
    "the API answers with errors": api_errors,
    "1,000 come and go at once": flit,
    "the pod is deleted": delete_pod,
    "history is forgotten": forget_history,
}
"""By the words for them."""


LARGE = [name for name, act in FAULTS.items() if act in (fill_limit, all_leave)]
"""With the most connections: memory must have been at its largest before it is compared."""


def deal(chance: Random) -> Iterator[str]:
    """
    Give faults without end, each as often as the others.

    The first one is for the bkscaler that is ended soon; the two largest are the first of the next one's.
    """
    hand = [name for name in FAULTS if name not in LARGE]
    chance.shuffle(hand)
    hand[1:1] = LARGE
    while True:
        yield from hand
        hand = list(FAULTS)
        chance.shuffle(hand)
