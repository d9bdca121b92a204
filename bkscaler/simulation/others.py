"""Acts of other people, of the network, and of those who end bkscaler."""

from __future__ import annotations

from random import Random
from signal import SIGTERM
from typing import Any

from bkscaler.sandbox.pods import FailureMode
from bkscaler.simulation.acts import Act, until, wrong
from bkscaler.simulation.visitors import brief, grpc_build_that_stays


def somebody_scales(world: Any, chance: Random) -> None:
    """Somebody else changes the replicas, perhaps twice."""
    for delay_s in (0.0, 0.1 * chance.random())[: chance.randint(1, 2)]:
        replicas = chance.choice((0, 1, 1, 2))
        world.later(
            delay_s, lambda replicas=replicas: world.by_hand(lambda: world.cluster.set_replicas(replicas))
        )


def scaled_while_idle(world: Any, chance: Random) -> None:
    """Somebody comes and goes, and somebody else scales up before the idle timeout has passed."""
    brief(world, chance)
    at_s = 1.0 + world.settings.idle_timeout_s * chance.random()
    world.later(at_s, lambda: world.by_hand(lambda: world.cluster.set_replicas(2)))


def set_replaced(world: Any, chance: Random) -> None:
    """The StatefulSet is deleted, at once or after having been about to be for a while, and made anew."""
    wrong(world)
    replicas, away_s = chance.choice((0, 1)), chance.choice((0.1, 2.0, 20.0))

    def delete() -> None:
        world.by_hand(world.cluster.delete_set)
        until(world, away_s, lambda: world.by_hand(lambda: world.cluster.create_set(replicas)))

    if chance.random() < 0.5:
        delete()
    else:
        world.by_hand(world.condemn_set)
        until(world, chance.choice((0.5, 3.0, 10.0)), delete)


def set_touched(world: Any, chance: Random) -> None:
    """Somebody changes something about the set that is none of our business, several times."""
    wrong(world)
    for number in range(chance.randint(1, 5)):
        world.later(0.3 * number * chance.random(), lambda: world.cluster.touch_set(f"{chance.random()}"))


def wall_clock_jumps(world: Any, chance: Random) -> None:
    """Somebody sets the clock."""
    world.wall_offset_s += chance.choice((-86_400.0, -5.0, 5.0, 86_400.0))


def cut_connection(world: Any, chance: Random) -> None:
    """Something on the way cuts one of bkscaler's connections, or swallows what comes."""
    wrong(world)
    process = world.judge.truth.process()
    links = (
        [] if process is None else [end.link for end in process.ends if end.link.server.host.name != "api"]
    )
    if links:
        link = chance.choice(links)
        link.cut() if chance.random() < 0.5 else link.fall_silent(60.0)


OTHERS: dict[Act, int] = {
    somebody_scales: 3, set_replaced: 3, set_touched: 2, wall_clock_jumps: 1, cut_connection: 3,
    scaled_while_idle: 2,
}  # fmt: skip


def terminated(world: Any, chance: Random) -> None:
    """bkscaler gets SIGTERM, perhaps twice; another one is started after it."""
    wrong(world)
    world.restart_after_s = chance.choice((0.1, 1.0, 10.0))
    process = world.process
    world.signal(SIGTERM)
    if chance.random() < 0.2:
        world.later(5 * chance.random(), lambda: process is world.process and world.signal(SIGTERM))


def killed(world: Any, chance: Random) -> None:
    """bkscaler is killed; another one is started."""
    wrong(world)
    world.restart_after_s = chance.choice((0.1, 1.0, 10.0))
    world.process.kill()


def terminated_idle(world: Any, chance: Random) -> None:
    """bkscaler gets SIGTERM while its only client is one that has cancelled its call, and stays."""
    wrong(world)
    world.restart_after_s = 0.1
    client = grpc_build_that_stays(world)
    client.after(0.05 + chance.random(), client.cancel)
    world.later(chance.choice((1.0, 3.0, 6.0)), lambda: world.signal(SIGTERM))


def terminated_while_held(world: Any, chance: Random) -> None:
    """bkscaler gets SIGTERM while it holds a client that stays, as no builder comes up."""
    wrong(world)
    world.restart_after_s = 0.1
    world.cluster.behaviour.failure = FailureMode.UNSCHEDULABLE
    until(world, 80.0, world.mend_builders)
    grpc_build_that_stays(world)
    world.later(chance.choice((0.5, 3.0)), lambda: world.signal(SIGTERM))


ENDS: dict[Act, int] = {terminated: 3, killed: 2, terminated_idle: 1, terminated_while_held: 1}
