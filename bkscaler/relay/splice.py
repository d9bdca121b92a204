"""
Two joined connections whose bytes the kernel moves: Python sees events, ``splice`` moves pages. Linux.

The transports stay paused, out of the reactor, and lend their sockets; at the end they close in the
ordinary way, so that both protocols still get ``connectionLost``. Each direction is a
:class:`~bkscaler.relay.flow.Flow` that moves what its source has until the source is empty or the sink is
full. An idle connection owns nothing but its registrations.

Imported by the plugin. It stands in for :class:`bkscaler.relay.pair.CopyRelay`, with the same tests.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.relay.flow import BUFFER_BYTES, Flow, Gone
from bkscaler.relay.leg import NOBODY, Leg
from bkscaler.relay.pair import End
from bkscaler.relay.pipes import PipePool
from bkscaler.relay.poller import OnEvents, Poller, Registration
from bkscaler.relay.stalls import Stalls

CAN_SPLICE = hasattr(os, "splice") and hasattr(select, "epoll")
EVENTS = select.EPOLLIN | select.EPOLLRDHUP if CAN_SPLICE else 0
"""What is listened for at first; that a sink takes bytes again only when it has refused some."""
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP if CAN_SPLICE else 0
_DONE = Failure(CONNECTION_DONE)
_ENDING = select.EPOLLRDHUP | select.EPOLLHUP if CAN_SPLICE else 0


class SpliceWorks:
    """
    What all relays share. One for the process.

    :param poller: tells of the sockets.
    :param pipes: lends pipes.
    :param stalls: spares peers that are alive and do not read.
    """

    def __init__(self, *, poller: Poller, pipes: PipePool, stalls: Stalls) -> None:
        self.poller = poller
        self.pipes = pipes
        self.stalls = stalls
        self.buffer = memoryview(bytearray(BUFFER_BYTES))


class SpliceRelay:
    """
    The relay that has the kernel move bytes: both legs are TCP (or Unix) sockets without TLS.

    :param client: the client's leg, paused.
    :param builder: the builder's leg, paused.
    :param works: what all relays share.
    :param registered: both legs', the client's first, when they are in the poller already, with
        :data:`EVENTS` at least; from the start on the relay listens by these, and is told by its maker what
        has happened before.
    """

    def __init__(
        self,
        client: Leg,
        builder: Leg,
        works: SpliceWorks,
        registered: Sequence[Registration] = (),
    ) -> None:
        self.ended: Deferred[End] = Deferred()
        self._works = works
        self._legs = (client, builder)
        self._up = Flow(client, builder, pipes=works.pipes, buffer=works.buffer)
        self._down = Flow(builder, client, pipes=works.pipes, buffer=works.buffer)
        self._registrations = registered
        self._end: End | None = None
        self._closing = False

    def __repr__(self) -> str:
        return f"<SpliceRelay {self.bytes_up} up, {self.bytes_down} down>"

    @property
    def bytes_up(self) -> int:
        """Bytes from the client to the builder so far."""
        return self._up.bytes

    @property
    def bytes_down(self) -> int:
        """Bytes from the builder to the client so far."""
        return self._down.bytes

    def start(self, early: bytes, greeting: bytes = b"") -> None:
        """Take over both legs; see :class:`~bkscaler.relay.pair.Relay`."""
        self._up.put(early)
        self._down.put(greeting)
        for leg in self._legs:
            leg.owner = self
            self._works.stalls.look_after(leg.transport)
        if self._legs[0].has_written:
            _Flushed(self._legs[0].transport, self._begin)
        else:
            self._begin()

    def cut(self) -> None:
        """Reset both connections."""
        self._abort(End.CUT)

    def connected(self, leg: Leg) -> None:
        """Never called: legs are connected before they are joined."""

    def received(self, leg: Leg, data: bytes) -> None:
        """Never called: the transports are paused."""

    def finished(self, leg: Leg) -> None:
        """Never called: the transports are paused."""

    def lost(self, leg: Leg, orderly: bool) -> None:
        """Take the other leg along, the way this one went; tell when both are gone."""
        leg.owner = NOBODY
        self._works.stalls.leave(leg.transport)
        if not orderly or not self._closing:
            self._abort(self._blame(leg))
        if all(each.is_lost for each in self._legs):
            self.ended.callback(self._end or End.COMPLETED)

    def _begin(self) -> None:
        """Listen to both sockets, and send what came early."""
        if self._end is not None or any(leg.is_lost for leg in self._legs):
            return
        heard = self._listener(self._up, self._down), self._listener(self._down, self._up)
        if self._registrations:
            for registration, listener in zip(self._registrations, heard, strict=True):
                registration.on_events = listener
        else:
            register = self._works.poller.register
            handles = [leg.transport.getHandle().fileno() for leg in self._legs]
            self._registrations = [
                register(handle, EVENTS, listener) for handle, listener in zip(handles, heard, strict=True)
            ]
        for flow in (self._up, self._down):
            if flow.stuck:
                self._run(flow)

    def _listener(self, outgoing: Flow, incoming: Flow) -> OnEvents:
        """
        Make what is told of one leg's events.

        :param outgoing: the flow whose source the leg is.
        :param incoming: the flow whose sink the leg is.
        """

        def heard(events: int) -> None:
            if events & select.EPOLLERR:
                self._abort(self._blame(outgoing.source))
                return
            if events & _READABLE:
                outgoing.ending = bool(events & _ENDING)
                self._read(outgoing)
            if incoming.stuck and events & select.EPOLLOUT:
                self._run(incoming)

        return heard

    def _read(self, flow: Flow) -> None:
        """Move what has come: a little at once, a lot in shares."""
        try:
            if not flow.ending and not flow.over and flow.pass_a_little():
                return
        except Gone as gone:
            self._abort(self._blame(gone.leg))
            return
        flow.readable = True
        self._run(flow)

    def _run(self, flow: Flow) -> None:
        """Move one share; come back for more, or close when both directions are over."""
        if self._end is not None or self._closing:
            return
        try:
            more = flow.run()
        except Gone as gone:
            self._abort(self._blame(gone.leg))
            return
        if more:
            self._queue(flow)
        elif flow.stuck:
            self._works.poller.listen_also(self._registrations[flow is self._up], select.EPOLLOUT)
        elif self._up.over and self._down.over:
            self._close()
        else:
            self._up.last, self._down.last = self._down.over, self._up.over

    def _queue(self, flow: Flow) -> None:
        """Come back to a flow when everybody else has had a share."""

        def go_on() -> None:
            flow.queued = False
            self._run(flow)

        if not flow.queued:
            flow.queued = True
            self._works.poller.call_again(go_on)

    def _close(self) -> None:
        """
        Close both connections: everything is in the kernel's hands. ``loseConnection`` would first try to
        write, which fails on a socket whose writing side has been shut down here.
        """
        self._closing = True
        self._let_go()
        for leg in self._legs:
            leg.transport.connectionLost(_DONE)

    def _abort(self, end: End) -> None:
        """Reset what is left; the first reason stays."""
        if self._end is None:
            self._end = end
            self._let_go()
            for leg in self._legs:
                if not leg.is_lost:
                    leg.transport.abortConnection()

    def _let_go(self) -> None:
        """Give back what is borrowed."""
        for registration in self._registrations:
            self._works.poller.forget(registration, closing=True)
        self._registrations = ()
        self._up.release()
        self._down.release()

    def _blame(self, leg: Leg) -> End:
        return End.CLIENT_LOST if leg is self._legs[0] else End.BUILDER_LOST


@implementer(IPullProducer)
class _Flushed:
    """
    Calls back when a transport has written everything that it had buffered.

    A pull producer is asked for more when the buffer is empty; the first call comes on registering and says
    nothing.
    """

    def __init__(self, transport: Any, on_flushed: Any) -> None:
        self._transport = transport
        self._on_flushed = on_flushed
        self._registered = False
        transport.registerProducer(self, False)
        self._registered = True
        transport.startWriting()

    def resumeProducing(self) -> None:
        """Hear that the buffer is empty."""
        if self._registered:
            self._transport.unregisterProducer()
            self._on_flushed()

    def stopProducing(self) -> None:
        """Hear that the connection is gone; whoever owns it hears of that, too."""
