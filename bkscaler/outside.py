"""
What the program has from outside itself, in one place: time, network, chance and signals.

The plugin gives it the real ones; a simulation gives it a virtual clock, an in-memory network and seeded
chance, and replaces nothing else. Imported by the plugin and by what takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bkscaler.relay.hangups import Hangups
from bkscaler.relay.poller import Poller


@dataclass(frozen=True, kw_only=True)
class Outside:
    """
    The surroundings of one process.

    :param reactor: network, time and delayed calls.
    :param random: gives numbers in [0, 1), for jitter and for names that nobody else has.
    :param now: the wall clock, in UTC, for stamps that others read.
    :param host_name: of this machine or pod; names us in Events and in our demand.
    :param make_hangups: makes what hears of hang-ups while transports are paused.
    :param set_handler: as :func:`signal.signal`.
    :param exit_now: ends the process on the spot with a status, as :func:`os._exit`.
    """

    reactor: Any
    random: Callable[[], float]
    now: Callable[[], datetime]
    host_name: str
    make_hangups: Callable[[Poller], Hangups]
    set_handler: Callable[[int, Any], Any]
    exit_now: Callable[[int], Any]
