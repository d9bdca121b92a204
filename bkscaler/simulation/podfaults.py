"""Acts of pods in trouble."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from bkscaler.sandbox.pods import FailureMode
from bkscaler.simulation.acts import Act, until, wrong
from bkscaler.simulation.serving import Manner
from bkscaler.simulation.visitors import (
    build_that_stays,
    grpc_build_that_stays,
    half_a_preface,
    http1,
    impatient,
    visit_within,
    wavers,
)

WAYS = [*(manner for manner in Manner if manner is not Manner.SERVES), Manner.SWALLOWS, Manner.SWALLOWS]
"""How builders are deaf; most often in the way that takes longest to notice."""


def crash(world: Any, chance: Random) -> None:
    """The builder's process dies."""
    for container in list(world.builders.containers.values()):
        container.exit(chance.choice((1, 137)))
    wrong(world)


def not_ready(world: Any, chance: Random) -> None:
    """The builder refuses connections for a while."""
    wrong(world)
    for container in list(world.builders.containers.values()):
        container.set_ready(False)
        until(world, chance.choice((0.5, 5.0, 30.0)), container.set_ready)


def deaf(world: Any, chance: Random) -> None:
    """The builder is Ready, and does not take connections, or not all of them, for a while."""
    wrong(world)
    manner, seconds = chance.choice(WAYS), chance.choice((0.3, 2.0, 7.0, 15.0, 60.0))
    share = chance.choice((0.5, 1.0, 1.0)) if manner is not Manner.FREEZES else 1.0
    dials = Random(f"{chance.random()}")
    for container in list(world.builders.containers.values()):
        container.behave(manner, lambda: dials.random() < share)
        until(world, seconds, container.behave)
    visit_within(world, seconds, Random(f"{chance.random()}"))


def left_while_stuck(world: Any, chance: Random) -> None:
    """A client sends more than a builder takes that freezes, or nothing, and goes in some way."""
    wrong(world)
    client = build_that_stays(world)
    freezes_s, stuck = chance.choice((2.0, 8.0)), chance.random() < 0.6

    def freeze() -> None:
        for container in list(world.builders.containers.values()):
            container.behave(Manner.FREEZES)
            until(world, 8.0, container.behave)
        for _ in range(4 if stuck else 0):
            client.say(200_000)

    world.later(freezes_s, freeze)
    ends = chance.choice((client.reset, client.reset, client.finish, client.hang_up, client.vanish))
    ends_s = freezes_s + 0.5 + 3 * chance.random()
    world.later(ends_s, ends if stuck else client.finish)
    if not stuck or chance.random() < 0.5:
        world.later(ends_s + 0.5, client.reset)


def deaf_at_first(world: Any, chance: Random) -> None:
    """From now on for a while a pod is Ready before it takes connections."""
    wrong(world)
    world.builders.late = chance.choice(WAYS), chance.choice((0.2, 0.2, 2.0, 7.0))
    until(world, chance.choice((30.0, 200.0)), world.mend_builders)


def evict(world: Any, chance: Random) -> None:
    """The pod is deleted by somebody."""
    wrong(world)
    _evict(world, chance.choice((0, 1, 30)))


def _evict(world: Any, grace_s: int) -> None:
    for pod in world.cluster.pods():
        world.cluster.delete_pod(pod["metadata"]["name"], grace_s)


def evicted_when_reached(world: Any, chance: Random) -> None:
    """The pod is deleted as soon as somebody connects to it; it takes its time to say how it is."""
    wrong(world)
    world.builders.check_s = 0.3
    grace_s, later = chance.choice((0, 1, 30)), Random(f"{chance.random()}")

    def delete() -> None:
        wrong(world)
        _evict(world, grace_s)

    def reached() -> None:
        world.builders.on_reached = lambda: None
        world.later(0.1 * later.random(), delete)

    world.builders.on_reached = reached
    until(world, 100.0, world.mend_builders)


def evicted_in_a_preface(world: Any, chance: Random) -> None:
    """The pod is deleted while somebody has said half a preface, and the rest is waited for."""
    wrong(world)
    stays = build_that_stays(world)
    stays.after(12.0, stays.hang_up)
    begins_s = chance.choice((3.0, 8.0))
    world.later(begins_s, lambda: world.visit(half_a_preface, chance))
    world.later(begins_s + 0.1 + 0.8 * chance.random(), lambda: evict(world, chance))


def slow_death(world: Any, chance: Random) -> None:
    """From now on for a while a pod takes its time to end."""
    wrong(world)
    world.builders.exit_after_s = chance.choice((None, 5.0, 100.0))
    world.cluster.behaviour.stop_delay_s = chance.choice((0.0, 5.0, 25.0))
    until(world, chance.choice((30.0, 200.0)), world.mend_builders)


def slow_birth(world: Any, chance: Random) -> None:
    """From now on for a while a pod takes its time to begin."""
    wrong(world)
    world.cluster.behaviour.start_delay_s = chance.choice((5.0, 60.0))
    world.builders.ready_after_s = chance.choice((1.0, 30.0, None))
    until(world, chance.choice((10.0, 100.0)), world.mend_builders)


def no_birth(world: Any, chance: Random) -> None:
    """For a while, possibly an hour, no pod comes up."""
    wrong(world)
    world.cluster.behaviour.failure = chance.choice(list(FailureMode))
    until(world, chance.choice((5.0, 60.0, 60.0, 3600.0)), world.mend_builders)


def come_in_vain(world: Any, chance: Random) -> None:
    """For a while no pod comes up, and clients come that change their mind, or leave, or wait."""
    wrong(world)
    world.cluster.behaviour.failure = FailureMode.UNSCHEDULABLE
    until(world, chance.choice((30.0, 100.0, 200.0)), world.mend_builders)
    _evict(world, 0)
    for visitor in (wavers, *chance.sample((http1, impatient, impatient), chance.randint(0, 2))):
        visitor(world, chance)


def ready_too_late(world: Any, chance: Random) -> None:
    """A pod becomes ready just before somebody's time is over, and its first dial gets no answer."""
    wrong(world)
    ready_s = world.settings.ready_wait_timeout_s - 0.3 - 4 * chance.random()
    manner = chance.choice((Manner.LOSES, Manner.LOSES, Manner.SWALLOWS, Manner.FREEZES))
    world.cluster.behaviour.start_delay_s, world.builders.ready_after_s = 0.1, None

    def become(manner: Manner) -> None:
        for container in list(world.builders.containers.values()):
            container.behave(manner)
            container.set_ready()

    def mend() -> None:
        become(Manner.SERVES)
        world.mend_builders()

    for container in list(world.builders.containers.values()):
        container.set_ready(False)
    until(world, ready_s, lambda: become(manner))
    until(world, ready_s + chance.choice((3.0, 20.0)), mend)
    chance.choice((build_that_stays, grpc_build_that_stays))(world)


def reuse_address(world: Any, chance: Random) -> None:
    """From now on the next pod gets the last one's address."""
    world.builders.reuse = True


def unreachable(world: Any, chance: Random) -> None:
    """Nothing gets to the pods that there are, for a while; connections to them fall silent."""
    wrong(world)
    for ip in [container.ip for container in world.builders.containers.values()]:
        world.judge.truth.unreachable.add(ip)
        for link in world.judge.truth.builder_links():
            link.fall_silent(60.0)
        until(world, chance.choice((1.0, 20.0)), partial(world.judge.truth.unreachable.discard, ip))


POD_FAULTS: dict[Act, int] = {
    crash: 3, not_ready: 2, deaf: 3, left_while_stuck: 1, deaf_at_first: 3, evict: 3,
    evicted_when_reached: 1, evicted_in_a_preface: 1, slow_death: 2, slow_birth: 2,
    no_birth: 2, come_in_vain: 2, ready_too_late: 2, reuse_address: 1, unreachable: 2,
}  # fmt: skip
