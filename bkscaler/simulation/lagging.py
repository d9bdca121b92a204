"""Acts of a StatefulSet controller that lags behind, and of those who come or scale just then."""

from __future__ import annotations

from random import Random
from typing import Any

from bkscaler.simulation.acts import Act, until, wrong
from bkscaler.simulation.links import Link
from bkscaler.simulation.visitors import brief, build, build_that_stays, grpc_builds, impatient

LAGS_S = (0.2, 1.0, 3.0, 8.0)
"""By how much it lags."""
IN_BETWEEN_S = 0.001
"""How long after the one read of a refresh the other one has not been carried out yet."""


def _lag(world: Any, chance: Random, seconds: float, *, slow: bool = False) -> float:
    """Let the controller be behind, or slow, for a while; give by how much."""
    controller, lag_s = world.cluster.controller, chance.choice(LAGS_S)
    at_once = chance.random() < 0.3

    def over() -> None:
        controller.slow_s = controller.cache.lag_s = 0.0
        if at_once:
            controller.cache.catch_up()

    if slow:
        controller.slow_s = lag_s
    else:
        controller.cache.lag_s = lag_s
    until(world, seconds, over, "lag")
    return lag_s


def controller_lags(world: Any, chance: Random) -> None:
    """
    For a while the controller is behind, or slow; somebody comes and goes, and somebody comes whenever
    bkscaler has just sent the builder away.
    """
    seconds = chance.choice((5.0, 30.0, 120.0))
    lag_s = _lag(world, chance, seconds, slow=chance.random() < 0.3)
    later = Random(f"{chance.random()}")

    def scaled(replicas: int, link: Link) -> None:
        if not replicas:
            visitor = later.choice((brief, build, grpc_builds, impatient))
            world.later(1.2 * lag_s * later.random() ** 2, lambda: world.visit(visitor, later))

    def disarm() -> None:
        world.api.on_scaled = lambda replicas, link: None

    world.api.on_scaled = scaled
    world.trouble_until(seconds, disarm)
    for _ in range(later.randint(1, 3)):
        world.later(seconds * later.random(), lambda: world.visit(brief, later))


def scaled_and_back(world: Any, chance: Random) -> None:
    """While the controller lags somebody scales to 0 and back; somebody comes right after that."""
    _back_and_forth(world, chance, unseen=False)


def scaled_and_back_unseen(world: Any, chance: Random) -> None:
    """The same, and bkscaler is cut off, or killed: it hears only that something has happened in between."""
    _back_and_forth(world, chance, unseen=True)


def _back_and_forth(world: Any, chance: Random, *, unseen: bool) -> None:
    """With the builder up, let somebody scale it down and up while the controller lags; clients come."""
    seconds = chance.choice((10.0, 20.0))
    client = build_that_stays(world)
    client.after(seconds * (0.3 + chance.random()), client.finish)

    def begin() -> None:
        lag_s = _lag(world, chance, seconds, slow=chance.random() < 0.2)
        if unseen:
            _be_away(world, chance)
        elif chance.random() < 0.5:
            _be_late(world, chance)
        _scale_to_0_and_1(world, chance.choice((0.0, 0.005, 0.05, 0.5)) * chance.random())
        if chance.random() < 0.5:
            _again_in_a_refresh(world, seconds)
        for _ in range(chance.randint(1, 3)):
            visitor = chance.choice((brief, build, grpc_builds))
            world.later(0.1 + 1.2 * lag_s * chance.random(), lambda v=visitor: world.visit(v, chance))

    world.later(chance.choice((1.0, 6.0)) * (0.5 + chance.random()), begin)


def _scale_to_0_and_1(world: Any, after_s: float) -> None:
    world.by_hand(lambda: world.cluster.set_replicas(0))
    world.later(after_s, lambda: world.by_hand(lambda: world.cluster.set_replicas(1)))


def _again_in_a_refresh(world: Any, seconds: float) -> None:
    """When the controller has caught up, let it happen again between two reads of a refresh."""

    def read(link: Link) -> None:
        if not world.cluster.controller.is_behind:
            disarm()
            world.later(IN_BETWEEN_S, lambda: _scale_to_0_and_1(world, 0.0))

    def disarm() -> None:
        world.api.on_read = lambda link: None

    world.api.on_read = read
    world.trouble_until(seconds, disarm)


def _be_away(world: Any, chance: Random) -> None:
    """Let bkscaler be out of touch for a moment."""
    wrong(world, "api")
    if chance.random() < 0.4:
        world.restart_after_s = 0.1
        world.process.kill()
    for link in world.api.links():
        link.cut()


def _be_late(world: Any, chance: Random) -> None:
    """Let what the API server sends on some connections, a watch's perhaps, arrive late."""
    wrong(world, "api")
    for link in world.api.links():
        if chance.random() < 0.5:
            link.client.latency_s = chance.choice((0.5, 5.0))


LAGS: dict[Act, int] = {controller_lags: 3, scaled_and_back: 2, scaled_and_back_unseen: 2}
