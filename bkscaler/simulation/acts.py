"""
What an act is: a function of the world and of chance of its own.

Acts that make trouble tell :class:`~bkscaler.simulation.truth.Truth` when it begins and when it ends, because
from then on things may take longer.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

Act = Callable[[Any, Random], None]


def wrong(world: Any, what: str = "others") -> None:
    """Take note that something goes wrong now; see :meth:`Truth.something_is_wrong`."""
    world.judge.truth.something_is_wrong(what)


def until(world: Any, seconds: float, act: Callable[[], Any], what: str = "others") -> None:
    """Let trouble last for so long; then an act ends it."""
    wrong(world, what)

    def over() -> None:
        wrong(world, what)
        act()

    world.trouble_until(seconds, over)
