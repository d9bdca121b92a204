"""
What clients of a soak come for, drawn by chance. Pure.

Half of them are ordinary builds; the others are everything that a port on a network gets to see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

from bkscaler.simulation.visitors import GARBAGE

KIB, MIB = 1024, 1024 * 1024


class Ending(Enum):
    """How a client leaves."""

    FINISH = "finish"
    """Half-close, and wait for the rest."""
    HANG_UP = "hang up"
    RESET = "reset"


@dataclass(frozen=True, kw_only=True)
class Errand:
    """
    What one client does.

    :param kind: in a word.
    :param says: how long it pauses before each piece, seconds, and how many bytes that has; each piece must
        have come back before the next pause begins.
    :param words: bytes that it sends first, and whose answer it does not look at; None: none.
    :param rests_s: how long it does not read, again and again, seconds.
    :param stays_s: how long it stays when it has nothing more to say, seconds.
    :param patience_s: how long it stays in any case, seconds.
    :param ending: how it leaves.
    :param speaks_http2: whether it is a gRPC client, whose pieces are calls.
    :param cancels: whether a gRPC client takes its calls back before it leaves.
    """

    kind: str
    says: tuple[tuple[float, int], ...] = ()
    words: bytes | None = None
    rests_s: float = 0.0
    stays_s: float = 0.0
    patience_s: float = math.inf
    ending: Ending = Ending.FINISH
    speaks_http2: bool = False
    cancels: bool = False

    @property
    def honest(self) -> bool:
        """Whether it must be served."""
        return bool(self.says)


def build(chance: Random) -> Errand:
    """Some pieces with pauses, all of which come back; then a half-close mostly."""
    pieces = range(chance.choice((1, 1, 2, 4)))
    sizes = (1, 300, 4 * KIB, 40 * KIB, 200 * KIB)
    says = tuple((0.8 * chance.random() if piece else 0.0, chance.choice(sizes)) for piece in pieces)
    ending = chance.choice((Ending.FINISH, Ending.FINISH, Ending.HANG_UP, Ending.RESET))
    return Errand(kind="build", says=says, stays_s=2.0 * chance.random(), ending=ending)


def grpc_build(chance: Random) -> Errand:
    """Some calls over one connection."""
    says = tuple((0.5 * chance.random(), chance.choice((1, 300, 8_000))) for _ in range(chance.randint(1, 3)))
    ending = chance.choice((Ending.HANG_UP, Ending.RESET))
    return Errand(kind="gRPC", says=says, stays_s=chance.random(), ending=ending, speaks_http2=True)


def interrupted(chance: Random) -> Errand:
    """A gRPC client that takes its call back soon, as Ctrl-C does."""
    patience_s = 0.05 + 1.5 * chance.random()
    return Errand(
        kind="interrupted gRPC",
        says=((0.0, 300), (3.0, 300)),
        patience_s=patience_s,
        ending=Ending.HANG_UP,
        speaks_http2=True,
        cancels=True,
    )


def impatient(chance: Random) -> Errand:
    """A client that leaves soon, whether it has been served or not."""
    size = chance.choice((10, 2 * KIB))
    ending = chance.choice((Ending.HANG_UP, Ending.RESET))
    return Errand(
        kind="impatient", says=((0.0, size),), stays_s=9.0, patience_s=chance.random(), ending=ending
    )


def bulk(chance: Random) -> Errand:
    """Megabytes in one go."""
    return Errand(kind="bulk", says=((0.0, chance.choice((2, 8)) * MIB),))


def slow_reader(chance: Random) -> Errand:
    """A client that stops reading, again and again, while the answer goes on."""
    return Errand(
        kind="slow reader", says=((0.0, chance.choice((1, 3)) * MIB),), rests_s=0.2 + chance.random()
    )


def probe(chance: Random) -> Errand:
    """A health check."""
    ending = chance.choice((Ending.HANG_UP, Ending.RESET))
    return Errand(kind="probe", patience_s=0.1 * chance.random(), ending=ending)


def silent(chance: Random) -> Errand:
    """A client that waits to be spoken to."""
    return Errand(kind="silent", patience_s=0.5 + 2.0 * chance.random(), ending=Ending.HANG_UP)


def garbage(chance: Random) -> Errand:
    """Bytes that mean nothing."""
    words, ending = chance.choice(GARBAGE), chance.choice((Ending.HANG_UP, Ending.RESET))
    return Errand(kind="garbage", words=words, patience_s=2.0 * chance.random(), ending=ending)


ERRANDS: dict[Callable[[Random], Errand], int] = {
    build: 50, grpc_build: 8, interrupted: 3, impatient: 8, bulk: 1, slow_reader: 2, probe: 8, silent: 5,
    garbage: 5,
}  # fmt: skip
"""What is drawn, and how often among the others."""


def draw(chance: Random) -> Errand:
    """Draw an errand."""
    return chance.choices(list(ERRANDS), list(ERRANDS.values()))[0](chance)


def lasting(pause_s: float) -> Errand:
    """
    A small build that stays, and asks again whether it is still served.

    :param pause_s: when it asks again, seconds.
    """
    return Errand(kind="lasting", says=((0.0, 20), (pause_s, 20)), ending=Ending.FINISH)


def waiting() -> Errand:
    """A client that says something and stays until it is told to leave."""
    return Errand(kind="one of many", says=((0.0, 20),), stays_s=math.inf, ending=Ending.HANG_UP)
