"""Acts of clients: builds, bursts, people who give up, health checks, and those who mean nothing good."""

from __future__ import annotations

from random import Random
from typing import Any

from bkscaler.frontend.sniff import PREFACE
from bkscaler.simulation.acts import Act
from bkscaler.simulation.callers import Builds
from bkscaler.simulation.clients import Client, Garbage

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
    if chance.random() < 0.1:
        _read_slowly(client, lasts_s, chance)


def build_that_stays(world: Any) -> Client:
    """A client that sends a little, and stays until somebody has it end."""
    client: Client = world.add(Client(_name(world), world.clock))
    client.after(0.01, lambda: client.say(20))
    return client


def grpc_build_that_stays(world: Any) -> Builds:
    """A gRPC client that makes a call, and stays until somebody has it end."""
    client: Builds = world.add(Builds(_name(world), world.clock))
    client.after(0.01, lambda: client.say(20))
    return client


def _read_slowly(client: Client, lasts_s: float, chance: Random) -> None:
    """Say a lot, and read nothing for a while."""
    begins_s = 0.02 + lasts_s * chance.random()
    client.after(begins_s, client.rest)
    client.after(begins_s + 20 * chance.random(), client.go_on)
    for _ in range(4):
        client.after(begins_s + 0.01, lambda: client.say(200_000))


def grpc_builds(world: Any, chance: Random) -> None:
    """A gRPC client that makes several builds over one connection; some of them are far away."""
    client = world.add(Builds(_name(world), world.clock))
    if chance.random() < 0.15:
        client.latency_s = 0.4 * chance.random()
        for number in range(chance.choice((0, 8))):
            client.after(0.02 + 0.15 * number, lambda: client.say(20))
    at_s = 0.01
    for _ in range(chance.choice((1, 1, 2, 3))):
        size = _size(chance)
        client.after(at_s, lambda size=size: client.say(size))
        if chance.random() < 0.2:
            client.after(at_s + 30 * chance.random(), client.cancel)
        at_s += chance.choice((0.1, 5.0, 40.0)) * chance.random()
    for beat in range(chance.choice((0, 0, 3))):
        client.after(10.0 * (beat + 1), client.ping)
    client.after(
        at_s + chance.choice((0.5, 10.0, 100.0, 250.0)), chance.choice((client.hang_up, client.reset))
    )


def wavers(world: Any, chance: Random) -> None:
    """A gRPC client that takes its call back early, and after a while makes another, or none, and stays."""
    client = grpc_build_that_stays(world)
    if chance.random() < 0.1:
        client.latency_s = 0.4 * chance.random()
    at_s = 0.01
    for _ in range(chance.randint(1, 3)):
        at_s += chance.choice((0.1, 1.0, 5.0)) * chance.random()
        client.after(at_s, client.cancel)
        if chance.random() < 0.3:
            client.after(at_s + 20 * chance.random(), client.ping)
        if chance.random() < 0.3:
            break
        at_s += chance.choice((0.1, 5.0, 58.0)) * chance.random()
        client.after(at_s, lambda: client.say(_size(chance)))
    end = chance.choice((client.hang_up, client.reset))
    client.after(at_s + chance.choice((10.0, 80.0, 200.0)), end)


def brief(world: Any, chance: Random) -> None:
    """A build that is over in a moment."""
    client = build_that_stays(world)
    client.after(0.05, client.finish)


def visit_within(world: Any, seconds: float, chance: Random) -> None:
    """Let clients come while there is trouble, perhaps, for so many seconds."""
    for _ in range(chance.randint(0, 2)):
        visitor = chance.choice((build, grpc_builds, wavers))
        world.later(seconds * chance.random(), lambda visitor=visitor: world.visit(visitor, chance))


def burst(world: Any, chance: Random) -> None:
    """Several small builds at nearly the same moment."""
    for _ in range(chance.randint(3, 8)):
        client = world.add(Client(_name(world), world.clock))
        client.after(0.01 * chance.random(), lambda client=client: client.say(30))
        client.after(0.05 + 2 * chance.random(), client.finish)


def impatient(world: Any, chance: Random) -> None:
    """A client that leaves before a cold builder can be ready, and perhaps after; some half-close before."""
    client = world.add(chance.choice((Client, Builds))(_name(world), world.clock))
    client.after(0.01, lambda: client.say(_size(chance)))
    leaves_s = 0.02 + 3 * chance.random() ** 2
    if chance.random() < 0.4:
        client.after(0.012 + (leaves_s - 0.02) * chance.random(), client.finish)
    client.after(leaves_s, chance.choice((client.hang_up, client.reset)))


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
    _says(world, chance, chance.choice(GARBAGE))


def http1(world: Any, chance: Random) -> None:
    """A client that speaks HTTP/1, and has patience."""
    client = world.add(Garbage(_name(world), world.clock, GARBAGE[0]))
    client.after(0.01, lambda: client.say(0))
    client.after(20 + 40 * chance.random(), client.hang_up)


def half_a_preface(world: Any, chance: Random) -> None:
    """The beginning of what HTTP/2 clients say first."""
    _says(world, chance, PREFACE[:10])


def _says(world: Any, chance: Random, words: bytes) -> None:
    client = world.add(Garbage(_name(world), world.clock, words))
    client.after(0.01, lambda: client.say(0))
    client.after(30 * chance.random(), client.hang_up)


CLIENTS: dict[Act, int] = {
    build: 8, grpc_builds: 5, wavers: 3, burst: 2, impatient: 2, probe: 2, silent: 1, garbage: 1
}  # fmt: skip
