"""
What can happen in a world. Each act is a function of the world and of chance of its own.

Acts that make trouble tell :class:`~bkscaler.simulation.truth.Truth` when it begins and when it ends, because
from then on things may take longer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from signal import SIGTERM
from typing import Any

from bkscaler.frontend.sniff import PREFACE
from bkscaler.sandbox.pods import FailureMode
from bkscaler.simulation.clients import Builds, Client, Garbage

Act = Callable[[Any, Random], None]
GARBAGE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x00\x05hello",
    PREFACE[:10],
    PREFACE + b"\x00\x00\x00\xff\x00\x00\x00\x00\x00",
    PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\xff" * 64,
    bytes(range(256)),
)
"""An HTTP/1 request, the beginning of TLS, half a preface, frames that are none, and noise."""


def _name(world: Any) -> str:
    return f"c{len(world.clients):07d}"


def _size(chance: Random) -> int:
    return chance.choice((1, 20, 500, 4_000, 40_000, 200_000))


def build(world: Any, chance: Random) -> None:
    """A client that sends, waits for what it has sent, perhaps sends more, and ends in some way."""
    client = world.add(Client(_name(world), world.clock))
    lasts_s = chance.choice((0.05, 1.0, 10.0, 60.0, 300.0)) * (0.5 + chance.random())
    for number in range(chance.choice((1, 1, 1, 2, 5))):
        size, at_s = _size(chance), lasts_s * chance.random() if number else 0.0
        client.after(0.01 + at_s, lambda size=size: client.say(size))
    end = chance.choice((client.finish, client.finish, client.finish, client.hang_up, client.reset))
    if chance.random() < 0.03:
        end = client.vanish
    client.after(0.02 + lasts_s, end)


def grpc_builds(world: Any, chance: Random) -> None:
    """A gRPC client that makes several builds over one connection."""
    client = world.add(Builds(_name(world), world.clock))
    at_s = 0.01
    for _ in range(chance.choice((1, 1, 2, 3))):
        size = _size(chance)
        client.after(at_s, lambda size=size: client.say(size))
        if chance.random() < 0.2:
            client.after(at_s + 30 * chance.random(), client.cancel)
        at_s += chance.choice((0.1, 5.0, 40.0)) * chance.random()
    for beat in range(chance.choice((0, 0, 3))):
        client.after(10.0 * (beat + 1), client.ping)
    client.after(at_s + chance.choice((0.5, 10.0, 100.0)), chance.choice((client.hang_up, client.reset)))


def burst(world: Any, chance: Random) -> None:
    """Several small builds at nearly the same moment."""
    for _ in range(chance.randint(3, 8)):
        client = world.add(Client(_name(world), world.clock))
        client.after(0.01 * chance.random(), lambda client=client: client.say(30))
        client.after(0.05 + 2 * chance.random(), client.finish)


def impatient(world: Any, chance: Random) -> None:
    """A client that leaves before a cold builder can be ready, and perhaps after."""
    client = world.add(chance.choice((Client, Builds))(_name(world), world.clock))
    client.after(0.01, lambda: client.say(_size(chance)))
    client.after(0.02 + 3 * chance.random() ** 2, chance.choice((client.hang_up, client.reset)))


def probe(world: Any, chance: Random) -> None:
    """A health check that says nothing."""
    client = world.add(Client(_name(world), world.clock))
    client.after(0.002 + 0.1 * chance.random(), chance.choice((client.hang_up, client.reset)))


def silent(world: Any, chance: Random) -> None:
    """A client that waits to be spoken to."""
    client = world.add(Garbage(_name(world), world.clock, b""))
    client.after(20 * chance.random(), client.hang_up)


def garbage(world: Any, chance: Random) -> None:
    """Bytes that mean nothing."""
    client = world.add(Garbage(_name(world), world.clock, chance.choice(GARBAGE)))
    client.after(0.01, lambda: client.say(0))
    client.after(30 * chance.random(), client.hang_up)


CLIENTS: dict[Act, int] = {
    build: 8, grpc_builds: 5, burst: 2, impatient: 2, probe: 2, silent: 1, garbage: 1
}  # fmt: skip


def api_refuses(world: Any, chance: Random) -> None:
    """Requests are answered with an error for a while."""
    trouble = world.api.trouble
    code = chance.choice((409, 429, 500, 503, 504))
    trouble.code, trouble.only = code, "PATCH" if code == 409 else chance.choice(("", "", "PATCH", "GET"))
    trouble.retry_after_s = chance.choice((0, 0, 1, 5)) if code in {429, 503} else 0
    _until(world, chance.choice((0.3, 3.0, 30.0)), world.api.recover)


def api_slow(world: Any, chance: Random) -> None:
    """Requests wait before they are looked at."""
    world.api.trouble.slow_s = chance.choice((0.3, 3.0, 20.0))
    _until(world, chance.choice((3.0, 30.0)), world.api.recover)


def api_loses_answers(world: Any, chance: Random) -> None:
    """Requests are carried out, and their connection is cut before the answer."""
    world.api.trouble.lose_answers = True
    world.api.trouble.only = chance.choice(("PATCH", ""))
    _until(world, chance.choice((0.5, 5.0, 20.0)), world.api.recover)


def api_cuts(world: Any, chance: Random) -> None:
    """Connections are cut before their request is looked at, and the watches with them."""
    world.api.trouble.cut_requests = True
    world.api.trouble.only = chance.choice(("PATCH", "", ""))
    cut_watches(world, chance)
    _until(world, chance.choice((0.5, 5.0, 20.0)), world.api.recover)


def api_stale(world: Any, chance: Random) -> None:
    """The server is restarted, and lists are as they were, for a while."""
    world.api.begin_stale()
    cut_watches(world, chance)
    _until(world, chance.choice((0.5, 3.0, 10.0)), world.api.recover)


def api_killed(world: Any, chance: Random) -> None:
    """The server is killed, and comes back."""
    world.api.kill()
    _until(world, chance.choice((0.1, 3.0, 20.0, 90.0)), world.api.start)


def api_terminated(world: Any, chance: Random) -> None:
    """The server refuses, keeps its watches open and silent, and another comes up."""
    world.api.terminate(chance.choice((5.0, 60.0)))
    _until(world, chance.choice((0.1, 3.0, 20.0)), world.api.start)


def cut_watches(world: Any, chance: Random) -> None:
    """Every connection to the API server is cut."""
    _wrong(world)
    for link in world.api.links():
        link.cut()


def cut_mid_line(world: Any, chance: Random) -> None:
    """Every connection to the API server is cut within what it delivers next."""
    _wrong(world)
    for link in world.api.links():
        link.cut_after_bytes = chance.randint(1, 3000)


def silent_watches(world: Any, chance: Random) -> None:
    """Every connection to the API server falls silent for good."""
    _wrong(world)
    for link in world.api.links():
        link.fall_silent(None)


def late_watches(world: Any, chance: Random) -> None:
    """What the API server sends takes long to arrive, on the connections that there are."""
    _wrong(world)
    for link in world.api.links():
        link.client.latency_s = chance.choice((0.5, 5.0, 20.0)) * chance.random()


def forget_history(world: Any, chance: Random) -> None:
    """What happened before is forgotten: watches that resume are told 410, some of them at once."""
    _wrong(world)
    world.cluster.state.compact()
    if chance.random() < 0.5:
        world.api.fail_watches(chance.choice((410, 410, 500)))
    else:
        cut_watches(world, chance)


API_FAULTS: dict[Act, int] = {
    api_refuses: 4, api_slow: 2, api_loses_answers: 3, api_cuts: 2, api_stale: 2, api_killed: 2,
    api_terminated: 1, cut_watches: 2, cut_mid_line: 2, silent_watches: 2, late_watches: 2, forget_history: 2,
}  # fmt: skip


def crash(world: Any, chance: Random) -> None:
    """The builder's process dies."""
    for container in list(world.builders.containers.values()):
        container.exit(chance.choice((1, 137)))
    _wrong(world)


def not_ready(world: Any, chance: Random) -> None:
    """The builder refuses connections for a while."""
    _wrong(world)
    for container in list(world.builders.containers.values()):
        container.set_ready(False)
        _until(world, chance.choice((0.5, 5.0, 30.0)), container.set_ready)


def evict(world: Any, chance: Random) -> None:
    """The pod is deleted by somebody."""
    _wrong(world)
    grace_s = chance.choice((0, 1, 30))
    for pod in world.cluster.pods():
        world.cluster.delete_pod(pod["metadata"]["name"], grace_s)


def slow_death(world: Any, chance: Random) -> None:
    """From now on for a while a pod takes its time to end."""
    _wrong(world)
    world.builders.exit_after_s = chance.choice((None, 5.0, 100.0))
    world.cluster.behaviour.stop_delay_s = chance.choice((0.0, 5.0, 25.0))
    _until(world, chance.choice((30.0, 200.0)), world.mend_builders)


def slow_birth(world: Any, chance: Random) -> None:
    """From now on for a while a pod takes its time to begin."""
    _wrong(world)
    world.cluster.behaviour.start_delay_s = chance.choice((5.0, 60.0))
    world.builders.ready_after_s = chance.choice((1.0, 30.0, None))
    _until(world, chance.choice((10.0, 100.0)), world.mend_builders)


def no_birth(world: Any, chance: Random) -> None:
    """For a while, possibly an hour, no pod comes up."""
    _wrong(world)
    world.cluster.behaviour.failure = chance.choice(list(FailureMode))
    _until(world, chance.choice((5.0, 60.0, 60.0, 3600.0)), world.mend_builders)


def reuse_address(world: Any, chance: Random) -> None:
    """From now on the next pod gets the last one's address."""
    world.builders.reuse = True


def unreachable(world: Any, chance: Random) -> None:
    """Nothing gets to the pods that there are, for a while; connections to them fall silent."""
    _wrong(world)
    for ip in [container.ip for container in world.builders.containers.values()]:
        world.judge.truth.unreachable.add(ip)
        for link in world.judge.truth.builder_links():
            link.fall_silent(60.0)
        _until(world, chance.choice((1.0, 20.0)), partial(world.judge.truth.unreachable.discard, ip))


POD_FAULTS: dict[Act, int] = {
    crash: 3, not_ready: 2, evict: 3, slow_death: 2, slow_birth: 2, no_birth: 2, reuse_address: 1,
    unreachable: 1,
}  # fmt: skip


def somebody_scales(world: Any, chance: Random) -> None:
    """Somebody else changes the replicas, perhaps twice."""
    for delay_s in (0.0, 0.1 * chance.random())[: chance.randint(1, 2)]:
        replicas = chance.choice((0, 1, 1, 2))
        world.later(
            delay_s, lambda replicas=replicas: world.by_hand(lambda: world.cluster.set_replicas(replicas))
        )


def set_replaced(world: Any, chance: Random) -> None:
    """The StatefulSet is deleted, and made anew."""
    _wrong(world)
    world.by_hand(world.cluster.delete_set)
    replicas = chance.choice((0, 1))
    _until(
        world,
        chance.choice((0.1, 2.0, 20.0)),
        lambda: world.by_hand(lambda: world.cluster.create_set(replicas)),
    )


def set_touched(world: Any, chance: Random) -> None:
    """Somebody changes something about the set that is none of our business, several times."""
    _wrong(world)
    for number in range(chance.randint(1, 5)):
        world.later(0.3 * number * chance.random(), lambda: world.cluster.touch_set(f"{chance.random()}"))


def wall_clock_jumps(world: Any, chance: Random) -> None:
    """Somebody sets the clock."""
    world.wall_offset_s += chance.choice((-86_400.0, -5.0, 5.0, 86_400.0))


def cut_connection(world: Any, chance: Random) -> None:
    """Something on the way cuts one of bkscaler's connections, or swallows what comes."""
    _wrong(world)
    process = world.judge.truth.process()
    links = (
        [] if process is None else [end.link for end in process.ends if end.link.server.host.name != "api"]
    )
    if links:
        link = chance.choice(links)
        link.cut() if chance.random() < 0.5 else link.fall_silent(60.0)


OTHERS: dict[Act, int] = {
    somebody_scales: 3, set_replaced: 1, set_touched: 2, wall_clock_jumps: 1, cut_connection: 3
}  # fmt: skip


def terminated(world: Any, chance: Random) -> None:
    """bkscaler gets SIGTERM, perhaps twice; another one is started after it."""
    _wrong(world)
    world.restart_after_s = chance.choice((0.1, 1.0, 10.0))
    process = world.process
    world.signal(SIGTERM)
    if chance.random() < 0.2:
        world.later(5 * chance.random(), lambda: process is world.process and world.signal(SIGTERM))


def killed(world: Any, chance: Random) -> None:
    """bkscaler is killed; another one is started."""
    _wrong(world)
    world.restart_after_s = chance.choice((0.1, 1.0, 10.0))
    world.process.kill()


ENDS: dict[Act, int] = {terminated: 3, killed: 2}


def _wrong(world: Any) -> None:
    world.judge.truth.something_is_wrong()


def _until(world: Any, seconds: float, act: Callable[[], Any]) -> None:
    """Let trouble last for so long."""
    _wrong(world)

    def over() -> None:
        _wrong(world)
        act()

    world.trouble_until(seconds, over)
