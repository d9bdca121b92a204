"""
A client that waits: what it has sent is kept, and that it leaves is noticed at once.

Reading goes on until the bound is reached, because reading is how a hang-up is heard of. From then on, and
from the first dial on, the transport is paused: the kernel's window is the back-pressure, and
:mod:`bkscaler.relay.hangups` does the listening. Imported by ``frontend.session``.
"""

from __future__ import annotations

from typing import Protocol

from bkscaler.frontend.sniff import Kind, classify
from bkscaler.relay.hangups import Hangup, Hangups, Watch
from bkscaler.relay.leg import Leg

HELD_LIMIT_BYTES = 64 * 1024
"""Where reading stops; one more read of at most 64 KiB may have been under way."""
SNIFFED_BYTES = 8 * 1024
"""How much of the beginning is looked at to tell who it is."""


class HeldListener(Protocol):
    """Who wants to know what a held client does. Called from the reactor."""

    def client_connected(self) -> None:
        """Hear that the connection is there; the first call."""

    def client_spoke(self) -> None:
        """Hear that there are bytes; called once."""

    def client_left(self) -> None:
        """Hear that the client has gone, or no longer wants an answer; called at most once."""

    def client_closed(self) -> None:
        """Hear that the connection we let go of is gone; called at most once, after :meth:`client_left`."""


class HeldClient:
    """
    The owner of a client's leg from its first moment until it is joined or let go.

    :param hangups: listens while the transport is paused.
    :param listener: who is told.
    :ivar leg: the connection; set by :meth:`connected`.
    """

    leg: Leg

    def __init__(self, *, hangups: Hangups, listener: HeldListener) -> None:
        self._hangups = hangups
        self._listener = listener
        self._bytes = bytearray()
        self._watch: Watch | None = None
        self._left = self._closing = False

    def __repr__(self) -> str:
        return f"<HeldClient {self.kind.value}, {len(self._bytes)} bytes>"

    @property
    def kind(self) -> Kind:
        """Who it is, judged by what it has sent so far."""
        return classify(bytes(self._bytes[:SNIFFED_BYTES]))

    def pause(self) -> None:
        """Read no more; go on listening for its end. May be called twice."""
        if self._watch is None and not self.leg.is_lost:
            self.leg.transport.pauseProducing()
            self._watch = self._hangups.watch(self.leg.transport, self._hung_up)

    def hand_over(self) -> bytes:
        """
        End holding, with the transport paused.

        :returns: everything the client has sent, which goes to the builder first.
        """
        self.pause()
        self._end_watch()
        held, self._bytes = bytes(self._bytes), bytearray()
        return held

    def close(self) -> None:
        """Let the client go. The listener hears nothing more but ``client_closed``, at once if it is gone."""
        self._left = self._closing = True
        self._end_watch()
        if self.leg.is_lost:
            self._listener.client_closed()
        else:
            self.leg.transport.loseConnection()

    def connected(self, leg: Leg) -> None:
        """Take the leg."""
        self.leg = leg
        self._listener.client_connected()

    def received(self, leg: Leg, data: bytes) -> None:
        """Keep bytes, up to the bound."""
        first = not self._bytes
        self._bytes += data
        if len(self._bytes) >= HELD_LIMIT_BYTES:
            self.pause()
        if first:
            self._listener.client_spoke()

    def finished(self, leg: Leg) -> None:
        """Tell a departure from a half-close, which leaves the client waiting for its answer."""
        if self.kind.leaves_by_finishing:
            self._leave()
        elif self._watch is None:
            self._watch = self._hangups.watch(leg.transport, self._hung_up)

    def lost(self, leg: Leg, orderly: bool) -> None:
        """Take note that the connection is gone."""
        if self._closing:
            self._listener.client_closed()
        else:
            self._leave()

    def _hung_up(self, hangup: Hangup) -> None:
        """Judge an end heard of while paused; after a half-close the relay will read it for itself."""
        if hangup is Hangup.LOST or self.kind.leaves_by_finishing:
            self._leave()

    def _leave(self) -> None:
        self._end_watch()
        if not self._left:
            self._left = True
            self._listener.client_left()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.end()
            self._watch = None
