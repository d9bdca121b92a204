"""
What a session needs from outside: where builders come from, who reaches them, who keeps count.

Other rooms are known here by their shape only; the plugin fills it in. Imported by the session, the shortcut
and the listener of this room, and by the plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bkscaler.frontend.dial import Dialer
from bkscaler.model import Connection, Replica
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay.hangups import Hangups
from bkscaler.relay.leg import Leg
from bkscaler.relay.pair import Relay


class Hold(Protocol):
    """One client's demand for a builder."""

    def when_ready(self) -> Deferred[Replica]:
        """
        Wait for a replica that may be dialled now; may be called again after a failed dial.

        :returns: fires with a replica; fails with :class:`~bkscaler.errors.WakeImpossible`. Cancelling ends
            this wait alone.
        """

    def ready_now(self) -> Replica | None:
        """Ask for a replica without waiting; None when it has to be waited for."""

    def release(self) -> None:
        """End the demand. May be called any number of times."""

    @property
    def waiting_for(self) -> str:
        """Why there is no replica yet, one line; ``""`` when nothing is known to say."""


class Capacity(Protocol):
    """Where builders come from."""

    def hold(self, name: str) -> Hold:
        """Need a builder from now on, under a unique name."""


class Reports(Protocol):
    """Who keeps count of connections. Must not raise, and not call back."""

    def accepted(self) -> None:
        """Hear that a connection was accepted."""

    def joined(self, waited_s: float) -> None:
        """Hear that a client was joined to a builder, and how many seconds it has waited."""

    def ended(self, outcome: Outcome, connection: Connection) -> None:
        """Hear how a connection ended: once for each, together with its line in the log."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """
    What all sessions share. Lives as long as the process.

    :param clock: for time limits and durations.
    :param random: gives numbers in [0, 1), for jitter.
    :param capacity: where builders come from.
    :param dialer: reaches them.
    :param join: makes a relay of a client's and a builder's leg, and is told whether the relay may keep what
        it reads to itself.
    :param hangups: listens while transports are paused.
    :param probe_grace_s: see ``--probe-grace``.
    :param hold_after_s: see ``--hold-after``.
    :param ready_wait_timeout_s: see ``--ready-wait-timeout``.
    :param reports: told of joined and ended connections; None tells nobody.
    """

    clock: IReactorTime
    random: Callable[[], float]
    capacity: Capacity
    dialer: Dialer
    join: Callable[[Leg, Leg, bool], Relay]
    hangups: Hangups
    probe_grace_s: float
    hold_after_s: float
    ready_wait_timeout_s: float
    reports: Reports | None = None


@dataclass(frozen=True, kw_only=True)
class HeadStart:
    """
    What was done for a client before it became a session.

    :param began_s: time on the clock when it came.
    :param hold: its demand for a builder, which the session ends; None when there is none yet.
    :param failed_dials: how many dials for it have failed.
    """

    began_s: float
    hold: Hold | None = None
    failed_dials: int = 0
