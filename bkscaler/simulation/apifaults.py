"""Acts of an API server in trouble, and of the network between it and bkscaler."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from bkscaler.sandbox.pods import FailureMode
from bkscaler.simulation.acts import Act, until, wrong
from bkscaler.simulation.identity import TAKEN
from bkscaler.simulation.links import Link
from bkscaler.simulation.others import somebody_scales
from bkscaler.simulation.visitors import brief, grpc_build_that_stays, visit_within

OTHER_WRITES = 10_000
"""How many versions other objects take, which are of no interest here: more than all of ours ever will."""


def _last(world: Any, chance: Random, seconds: float, over: Callable[[], Any]) -> None:
    """Let trouble last for so long; somebody may come while it does."""
    until(world, seconds, over, "api")
    if chance.random() < 0.5:
        visit_within(world, seconds, Random(f"{chance.random()}"))


def api_refuses(world: Any, chance: Random) -> None:
    """Requests are answered with an error for a while."""
    trouble = world.api.trouble
    code = chance.choice((409, 429, 500, 503, 504))
    trouble.code, trouble.only = code, "PATCH" if code == 409 else chance.choice(("", "", "PATCH", "GET"))
    trouble.retry_after_s = chance.choice((0, 0, 1, 5)) if code in {429, 503} else 0
    _last(world, chance, chance.choice((0.3, 3.0, 30.0)), world.api.recover)


def api_slow(world: Any, chance: Random) -> None:
    """Requests wait before they are looked at."""
    world.api.trouble.slow_s = chance.choice((0.3, 3.0, 20.0))
    _last(world, chance, chance.choice((3.0, 30.0)), world.api.recover)


def api_loses_answers(world: Any, chance: Random) -> None:
    """Requests are carried out, and their connection is cut before the answer, or somebody says 504."""
    spoilt = chance.random() < 0.3
    world.api.trouble.spoil_answers, world.api.trouble.lose_answers = spoilt, not spoilt
    world.api.trouble.only = chance.choice(("PATCH", ""))
    _last(world, chance, chance.choice((0.5, 5.0, 20.0)), world.api.recover)


def api_cuts(world: Any, chance: Random) -> None:
    """Connections are cut before their request is looked at, and the watches with them."""
    world.api.trouble.cut_requests = True
    world.api.trouble.only = chance.choice(("PATCH", "", ""))
    cut_watches(world, chance)
    _last(world, chance, chance.choice((0.5, 5.0, 20.0)), world.api.recover)


def api_stale(world: Any, chance: Random) -> None:
    """The server is restarted, and lists are as they were, for a while."""
    world.api.begin_stale()
    cut_watches(world, chance)
    _last(world, chance, chance.choice((0.5, 3.0, 10.0)), world.api.recover)


def api_killed(world: Any, chance: Random) -> None:
    """The server is killed, and comes back."""
    world.api.kill()
    _last(world, chance, chance.choice((0.1, 3.0, 20.0, 90.0, 300.0)), world.api.start)


def api_terminated(world: Any, chance: Random) -> None:
    """The server refuses, keeps its watches open and silent, and another comes up."""
    world.api.terminate(chance.choice((5.0, 60.0)))
    _last(world, chance, chance.choice((0.1, 3.0, 20.0)), world.api.start)


def token_renewed(world: Any, chance: Random) -> None:
    """The token's file gets another one in time, or when the last one has been refused for a while."""
    late = chance.random() < 0.5
    if late:
        world.identity.expire()
        _last(world, chance, chance.choice((0.2, 3.0, 20.0)), world.identity.renew)
    else:
        expired = world.identity.token
        world.identity.renew()
        world.later(chance.choice((0.0, 10.0)), lambda: world.cluster.tokens.pop(expired, None))


def rights_taken(world: Any, chance: Random) -> None:
    """Rights are taken away, and given back after a while."""
    for resource in chance.sample(TAKEN, chance.choice((1, 1, 2, 4))):
        world.identity.take(resource)
    _last(world, chance, chance.choice((1.0, 4.0, 15.0, 60.0)), world.identity.give_back)


def cut_watches(world: Any, chance: Random) -> None:
    """Every connection to the API server is cut."""
    wrong(world, "api")
    for link in world.api.links():
        link.cut()


def cut_mid_line(world: Any, chance: Random) -> None:
    """Every connection to the API server is cut within what it delivers next."""
    wrong(world, "api")
    for link in world.api.links():
        link.cut_after_bytes = chance.randint(1, 3000)


def silent_watches(world: Any, chance: Random) -> None:
    """Every connection to the API server falls silent for good."""
    wrong(world, "api")
    for link in world.api.links():
        link.fall_silent(None)
    visit_within(world, chance.choice((15.0, 80.0)), Random(f"{chance.random()}"))
    if chance.random() < 0.3:
        world.later(60 * chance.random(), lambda: world.visit(somebody_scales, chance))


def api_unreachable(world: Any, chance: Random) -> None:
    """Nothing gets to the server or from it for a while; what is dialled gets no answer."""
    unreachable, ip = world.judge.truth.unreachable, world.api.ip
    unreachable.add(ip)
    for link in world.api.links():
        link.fall_silent(chance.choice((20.0, 60.0)))
    _last(world, chance, chance.choice((1.0, 10.0, 40.0)), lambda: unreachable.discard(ip))


def undone(world: Any, chance: Random) -> None:
    """For a while somebody undoes at once what bkscaler has scaled, which makes it try less often."""
    seconds, delay_s = chance.choice((2.0, 10.0, 20.0)), chance.choice((0.0, 0.01, 0.5))

    def scaled(replicas: int, link: Link) -> None:
        wrong(world, "api")
        world.later(delay_s, lambda: world.by_hand(lambda: world.cluster.set_replicas(1 - replicas)))

    def disarm() -> None:
        world.api.on_scaled = lambda replicas, link: None

    world.api.on_scaled = scaled
    until(world, seconds, disarm, "api")


def late_watches(world: Any, chance: Random) -> None:
    """What the API server sends takes long to arrive, on the connections that there are."""
    wrong(world, "api")
    for link in world.api.links():
        link.client.latency_s = chance.choice((0.5, 5.0, 20.0)) * chance.random()


def forget_history(world: Any, chance: Random) -> None:
    """What happened before is forgotten: watches that resume are told 410, some of them at once."""
    wrong(world, "api")
    world.cluster.state.compact()
    if chance.random() < 0.5:
        world.api.fail_watches(chance.choice((410, 410, 500)))
    else:
        cut_watches(world, chance)


def slow_look(world: Any, chance: Random) -> None:
    """The next look before sleep is carried out, or answered, late, and somebody comes, or scales."""
    seconds, later = chance.choice((0.3, 2.0, 8.0)), Random(f"{chance.random()}")
    late = chance.random() < 0.5

    def read(link: Link) -> None:
        if world.judge.truth.client_ends() or not world.judge.truth.replicas():
            return
        disarm()
        if late:
            link.client.latency_s = 8.0
            wrong(world, "api")
        else:
            world.api.trouble.slow_s = seconds
            until(world, seconds, world.api.recover, "api")
        who = later.choice((somebody_scales, brief, brief, None))
        if who is not None:
            world.later(0.5 * later.random(), lambda: world.visit(who, later))
        else:
            visit_within(world, seconds, later)

    def disarm() -> None:
        world.api.on_read = lambda link: None

    world.api.on_read = read
    world.trouble_until(1000.0, disarm)


def scaling_unanswered(world: Any, chance: Random) -> None:
    """The next scale-down is carried out, and for a while nothing is heard any more of the API server."""
    seconds, how = chance.choice((0.3, 2.0, 8.0)), chance.choice((_die, _be_cut_off, _be_late, _be_spoilt))
    down, later = chance.random() < 0.8, Random(f"{chance.random()}")

    world.api.spoil_scaling = how is _be_spoilt

    def scaled(replicas: int, link: Link) -> None:
        if down and replicas:
            return
        disarm()
        how(world, seconds, link)
        visit_within(world, seconds, later)

    def disarm() -> None:
        world.api.spoil_scaling = False
        world.api.on_scaled = lambda replicas, link: None

    world.api.on_scaled = scaled
    world.trouble_until(1000.0, disarm)


def wake_unheard_of(world: Any, chance: Random) -> None:
    """Somebody scales to 0; the wake that follows is answered with 504, and no pod comes of it."""
    wrong(world)
    world.cluster.behaviour.failure = FailureMode.UNSCHEDULABLE
    until(world, 130.0, world.mend_builders)
    world.api.spoil_scaling = True

    def scaled(replicas: int, link: Link) -> None:
        if replicas:
            disarm()

    def disarm() -> None:
        world.api.spoil_scaling = False
        world.api.on_scaled = lambda replicas, link: None

    world.api.on_scaled = scaled
    world.trouble_until(1000.0, disarm)
    world.by_hand(lambda: world.cluster.set_replicas(0))
    grpc_build_that_stays(world)


def scaled_meanwhile(world: Any, chance: Random) -> None:
    """Somebody else scales, or changes something, just before the next scale request is looked at."""
    replicas = chance.choice((0, 1, 2, 2))

    def asked() -> None:
        disarm()
        world.by_hand(lambda: world.cluster.set_replicas(replicas))

    def disarm() -> None:
        world.api.on_scale = lambda: None

    world.api.on_scale = asked
    world.trouble_until(1000.0, disarm)


def set_replaced_unseen(world: Any, chance: Random) -> None:
    """The StatefulSet is deleted, which bkscaler hears, and made anew, which it does not; clients come."""
    world.by_hand(world.cluster.delete_set)
    world.later(chance.choice((0.2, 2.0)), lambda: world.leaving or world.api.kill())
    until(world, 3.0, lambda: world.by_hand(lambda: world.cluster.create_set(0)), "api")
    until(world, 30.0, world.api.start, "api")
    world.later(14.0, lambda: visit_within(world, 10.0, chance))


def restored(world: Any, chance: Random) -> None:
    """
    The server is lost, and restored from a backup that was made a while before. Its connections are reset, or
    fall silent for good: then nobody hears that it was away.
    """
    if not world.judge.truth.set_is_well():
        return
    backup, later = world.cluster.state.backup(), Random(f"{chance.random()}")
    unheard, down_s = chance.random() < 0.4, chance.choice((0.1, 3.0, 20.0))
    others = OTHER_WRITES if unheard else chance.choice((0, 3, OTHER_WRITES))

    def fail() -> None:
        world.cluster.state.version += others
        world.by_hand(lambda: world.cluster.touch_set("before the end"))
        world.later(0.1, lambda: None if world.leaving else vanish())

    def vanish() -> None:
        if unheard:
            silent_watches(world, later)
            world.judge.truth.unreachable.add(world.api.ip)
        else:
            world.api.kill()
        until(world, down_s, come_back, "api")

    def come_back() -> None:
        world.judge.truth.unreachable.discard(world.api.ip)
        if not unheard:
            world.api.kill()
        world.by_hand(lambda: world.api.restore(backup, world.judge.truth.is_deaf()))
        visit_within(world, later.choice((5.0, 40.0)), later)

    age_s = chance.choice((0.0, 3.0, 30.0, 100.0)) * chance.random()
    world.later(age_s, lambda: None if world.leaving else fail())


def _die(world: Any, seconds: float, asked: Link) -> None:
    """It is killed, and comes back."""
    world.api.kill()
    until(world, seconds, world.api.start, "api")


def _be_cut_off(world: Any, seconds: float, asked: Link) -> None:
    """Connections are cut, the watches' too, and so are new ones."""
    world.api.trouble.cut_requests = True
    for link in world.api.links():
        link.cut()
    until(world, seconds, world.api.recover, "api")


def _be_spoilt(world: Any, seconds: float, asked: Link) -> None:
    """Answers of what is carried out are replaced by 504; what is sent by itself is late."""
    world.api.trouble.spoil_answers = True
    for link in world.api.links():
        if link is not asked:
            link.client.latency_s = seconds
    until(world, seconds, world.api.recover, "api")


def _be_late(world: Any, seconds: float, asked: Link) -> None:
    """What was sent last arrives late; new requests are not answered in time, some of them not at all."""
    world.api.trouble.slow_s = 2 * seconds
    for link in world.api.links():
        link.client.latency_s = seconds
        if link.number % 2:
            link.fall_silent(None)
    until(world, seconds, world.api.recover, "api")


API_FAULTS: dict[Act, int] = {
    api_refuses: 4, api_slow: 2, api_loses_answers: 3, api_cuts: 2, api_stale: 4, api_killed: 2,
    api_terminated: 1, cut_watches: 2, cut_mid_line: 2, silent_watches: 2, late_watches: 2, forget_history: 4,
    scaling_unanswered: 4, slow_look: 3, scaled_meanwhile: 2, token_renewed: 2,
    rights_taken: 2, set_replaced_unseen: 1, api_unreachable: 2, undone: 1, restored: 2,
    wake_unheard_of: 1,
}  # fmt: skip
