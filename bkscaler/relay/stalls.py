"""
Sparing peers that are alive and do not read.

``TCP_USER_TIMEOUT`` finds a dead peer, but Linux also applies it to one that answers every window probe
and merely does not read: a build that is stopped with Ctrl-Z, a builder whose disk is busy. Measured, such
a connection is cut as soon as its window has been closed for that long. So, a few times within that limit,
every connection is looked at (one ``getsockopt``, about a microsecond): where the window is closed by a
peer that answers, the limit is lifted until the bytes flow again. Imported by this room and the frontend.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IReactorTime, ITCPTransport

from bkscaler.relay import sockets
from bkscaler.relay.bare import BareTransport
from bkscaler.timers import Timers

LOOK_EVERY_S = 15.0
"""A quarter of the limit, so that a stall is seen three times at least before it would be punished."""
CAN_SPARE = hasattr(socket, "TCP_USER_TIMEOUT") and hasattr(socket, "TCP_INFO")


class Stalls:
    """
    Looks after the connections it is told of. Lives as long as the process; idle without connections.

    :param clock: says when to look.
    :param limit_ms: the limit that :func:`bkscaler.relay.sockets.tune` has set, milliseconds.
    :param every_s: seconds between two looks, > 0.
    """

    def __init__(
        self, clock: IReactorTime, *, limit_ms: int = sockets.USER_TIMEOUT_MS, every_s: float = LOOK_EVERY_S
    ) -> None:
        self._clock = clock
        self._limit_ms = limit_ms
        self._every_s = every_s
        self._timers = Timers(clock)
        self._spared: dict[Any, bool] = {}

    def __repr__(self) -> str:
        return f"<Stalls: {sum(self._spared.values())} spared of {len(self._spared)}>"

    def look_after(self, transport: Any) -> None:
        """Begin with a connection; one that is not TCP needs no care and gets none."""
        is_tcp = isinstance(transport, BareTransport) or ITCPTransport.providedBy(transport)
        if not CAN_SPARE or not is_tcp:
            return
        if not self._spared:
            self._look_later()
        self._spared[transport] = False

    def leave(self, transport: Any) -> None:
        """End with a connection, before or after it is closed; it may be one that was never begun with."""
        self._spared.pop(transport, None)
        if not self._spared:
            self._timers.cancel_all()

    def _look_later(self) -> None:
        self._timers.keep("look", self._clock.seconds() + self._every_s, self._look)

    def _look(self) -> None:
        """Lift or restore the limit of each connection."""
        for transport, spared in self._spared.items():
            handle = transport.getHandle()
            stalled = sockets.peer_has_closed_its_window(handle)
            if stalled is not spared:
                sockets.limit_silence(handle, 0 if stalled else self._limit_ms)
                self._spared[transport] = stalled
        self._look_later()
