"""
Two joined connections: what a relay is, and the one that copies with Twisted's producers and consumers.

Each direction is a :class:`_Flow`, independent of the other: back-pressure, half-close and the end of one
never wait for the other. A leg that is not being read (its reader is stalled, or it has finished) is watched
for resets, which it could not hear of otherwise. Imported by the frontend.

=====================================  ============================================================
what happens to one leg                what is done to the other
=====================================  ============================================================
bytes arrive                           they are written
its write buffer is full               its peer's leg is paused until the buffer is empty
the peer finishes (FIN)                its bytes are flushed, then we finish (FIN); reading goes on
the peer resets, or is dead            it is reset, bytes in flight are dropped
both peers have finished               both legs are flushed and closed
=====================================  ============================================================
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from bkscaler.relay.hangups import Hangup, Hangups, Watch
from bkscaler.relay.leg import NOBODY, Leg, LegOwner
from bkscaler.relay.stalls import Stalls


class End(Enum):
    """How a relay ended."""

    COMPLETED = "both sides finished"
    CLIENT_LOST = "the client's connection was reset or died"
    BUILDER_LOST = "the builder's connection was reset or died"
    CUT = "we cut it"


class Relay(LegOwner, Protocol):
    """
    Two joined legs. It owns both from :meth:`start` until :attr:`ended` has fired.

    A relay is also the owner of both legs (:class:`~bkscaler.relay.leg.LegOwner`).

    :ivar ended: fires with an :class:`End` when both connections are gone; never fails. Do not cancel it:
        :meth:`cut` ends a relay.
    """

    ended: Deferred[End]

    @property
    def bytes_up(self) -> int:
        """Bytes from the client to the builder so far."""

    @property
    def bytes_down(self) -> int:
        """Bytes from the builder to the client so far."""

    def start(self, early: bytes, greeting: bytes = b"") -> None:
        """
        Take over both legs, which are paused, and let bytes flow. Call it once.

        :param early: what the client has sent already; it goes to the builder first.
        :param greeting: what the builder has sent already; it goes to the client first.
        """

    def cut(self) -> None:
        """Reset both connections. May be called at any time; nothing happens after the end."""


@implementer(IPushProducer)
class _Flow:
    """One direction: from a leg that is read to a leg that is written. It is the latter's producer."""

    def __init__(self, source: Leg, sink: Leg, watch: Callable[[Leg], Watch]) -> None:
        self.bytes = 0
        self.source = source
        self.sink = sink
        self._start_watching = watch
        self._watch: Watch | None = None

    def start(self, early: bytes) -> None:
        """Send what came early, then read."""
        self.sink.transport.registerProducer(self, True)
        if not self.source.has_finished:
            self.source.transport.resumeProducing()
        self.write(early)
        if self.source.has_finished:
            self.finish()

    def write(self, data: bytes) -> None:
        """Send bytes on; the sink pauses us when it has too many."""
        self.bytes += len(data)
        self.sink.transport.write(data)

    def finish(self) -> None:
        """Send the end on, behind the bytes that are still to be written."""
        self._keep_watch()
        self.sink.transport.unregisterProducer()
        self.sink.transport.loseWriteConnection()

    def end(self) -> None:
        """Let go of both legs, the source being lost, and of the relay."""
        self._end_watch()
        del self._start_watching
        if not self.sink.is_lost:
            self.sink.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Read no more: the sink's buffer is full."""
        self.source.transport.pauseProducing()
        self._keep_watch()

    def resumeProducing(self) -> None:
        """Read again: the sink's buffer is empty."""
        if not self.source.has_finished:
            self._end_watch()
            self.source.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: the sink is gone, and the relay hears of that from its leg."""

    def _keep_watch(self) -> None:
        if self._watch is None and not self.source.is_lost:
            self._watch = self._start_watching(self.source)

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.end()
            self._watch = None


class CopyRelay:
    """
    The relay that reads into Python and writes from there: works on any transport.

    :param client: the client's leg, paused.
    :param builder: the builder's leg, paused.
    :param hangups: watches legs that are not being read.
    :param stalls: spares peers that are alive and do not read.
    """

    def __init__(self, client: Leg, builder: Leg, *, hangups: Hangups, stalls: Stalls) -> None:
        self.ended: Deferred[End] = Deferred()
        self._hangups = hangups
        self._stalls = stalls
        self._up = _Flow(client, builder, self._watch)
        self._down = _Flow(builder, client, self._watch)
        self._flows = {client: self._up, builder: self._down}
        self._end: End | None = None

    def __repr__(self) -> str:
        return f"<CopyRelay {self.bytes_up} up, {self.bytes_down} down>"

    @property
    def bytes_up(self) -> int:
        """Bytes from the client to the builder so far."""
        return self._up.bytes

    @property
    def bytes_down(self) -> int:
        """Bytes from the builder to the client so far."""
        return self._down.bytes

    def start(self, early: bytes, greeting: bytes = b"") -> None:
        """Take over both legs; see :class:`Relay`."""
        for leg in self._flows:
            leg.owner = self
            self._stalls.look_after(leg.transport)
        self._down.start(greeting)
        self._up.start(early)
        self._close_if_finished()

    def cut(self) -> None:
        """Reset both connections."""
        self._abort(End.CUT)

    def connected(self, leg: Leg) -> None:
        """Never called: legs are connected before they are joined."""

    def received(self, leg: Leg, data: bytes) -> None:
        """Send bytes on to the other leg."""
        self._flows[leg].write(data)

    def finished(self, leg: Leg) -> None:
        """Send an end on; after the second one, close."""
        self._flows[leg].finish()
        self._close_if_finished()

    def lost(self, leg: Leg, orderly: bool) -> None:
        """Take the other leg along, the way this one went; tell when both are gone."""
        leg.owner = NOBODY
        self._stalls.leave(leg.transport)
        self._flows[leg].end()
        if not orderly:
            self._abort(self._blame(leg))
        if all(each.is_lost for each in self._flows):
            self.ended.callback(self._end or End.COMPLETED)

    def _close_if_finished(self) -> None:
        """When both have finished, close both; what is still to be written is written first."""
        if all(leg.has_finished for leg in self._flows):
            for leg in self._flows:
                leg.transport.loseConnection()

    def _blame(self, leg: Leg) -> End:
        return End.CLIENT_LOST if leg is self._up.source else End.BUILDER_LOST

    def _abort(self, end: End) -> None:
        """Reset what is left; the first reason stays."""
        if self._end is None:
            self._end = end
            for leg in self._flows:
                if not leg.is_lost:
                    leg.transport.abortConnection()

    def _watch(self, leg: Leg) -> Watch:
        """Watch a leg that is not being read."""

        def heard(hangup: Hangup) -> None:
            if hangup is Hangup.LOST:
                self._abort(self._blame(leg))

        return self._hangups.watch(leg.transport, heard)
