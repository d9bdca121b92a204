"""
Two joined connections whose bytes the kernel moves: Python sees events, ``splice`` moves pages. Linux.

The transports stay paused, out of the reactor, and lend their sockets; at the end they close in the
ordinary way, so that both protocols still get ``connectionLost``. Each direction is a :class:`_Flow` that
moves what its source has until the source is empty or the sink is full, a share at a time:

- *A little* (less than 64 KiB was there) is received and sent through one buffer that all flows share: two
  system calls, and no pipe is touched.
- *A lot* is spliced through a pipe from the pool, which goes back as soon as it is empty. Without a pipe to
  be had it is copied like a little.

What the sink does not take stays in the pipe, or, if it was copied, in the flow: at most one share. An idle
connection owns nothing but its registration. ``EAGAIN`` from ``splice`` would not tell an empty socket from a
full pipe, so bytes are only taken in when nothing is in flight.

Imported by the plugin. It stands in for :class:`bkscaler.relay.pair.CopyRelay`, with the same tests.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.relay.leg import Leg
from bkscaler.relay.pair import End
from bkscaler.relay.pipes import Pipe, PipePool
from bkscaler.relay.poller import OnEvents, Poller, Registration
from bkscaler.relay.stalls import Stalls

BUFFER_BYTES = 64 * 1024
"""A read that fills it tells a lot from a little."""
SHARE_BYTES = 2 * 1024 * 1024
"""How much one flow moves before the others have their turn: about half a millisecond's work."""
CAN_SPLICE = hasattr(os, "splice") and hasattr(select, "epoll")
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP if CAN_SPLICE else 0
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP if CAN_SPLICE else 0
_ENDING = select.EPOLLRDHUP | select.EPOLLHUP if CAN_SPLICE else 0
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if CAN_SPLICE else 0


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


class _Gone(Exception):
    """One end of a flow has failed."""

    def __init__(self, leg: Leg) -> None:
        super().__init__()
        self.leg = leg


class _Flow:
    """
    One direction.

    :ivar bytes: how many the sink has taken.
    :ivar readable: whether the source may have something.
    :ivar ending: whether the source's end is near, so that it must be read to the end.
    :ivar stuck: whether something is in flight that the sink did not take.
    :ivar queued: whether it will be called again without an event.
    :ivar over: whether the end has been passed on.
    """

    __slots__ = (
        "_in_pipe",
        "_lot",
        "_pipe",
        "_pipes",
        "_pool_buffer",
        "_rest",
        "_sink_socket",
        "_source_socket",
        "bytes",
        "ending",
        "over",
        "queued",
        "readable",
        "sink",
        "source",
        "stuck",
    )

    def __init__(self, source: Leg, sink: Leg, works: SpliceWorks) -> None:
        self.source = source
        self.sink = sink
        self._source_socket: socket.socket = source.transport.getHandle()
        self._sink_socket: socket.socket = sink.transport.getHandle()
        self._pipes = works.pipes
        self._pool_buffer = works.buffer
        self._pipe: Pipe | None = None
        self._in_pipe = 0
        self._rest: bytes = b""
        self._lot = False
        self.readable = self.ending = self.stuck = self.queued = self.over = False
        self.bytes = 0

    def put(self, data: bytes) -> None:
        """Have bytes to send before any that are read."""
        self._rest += data
        self.stuck = bool(self._rest)

    def run(self) -> bool:
        """
        Move one share.

        :returns: whether there may be more to move, now.
        :raises _Gone: when either end has failed.
        """
        share = self.bytes + SHARE_BYTES
        while not self.stuck or self._flush():
            if not self.readable or self.over:
                self._return_pipe()
                return False
            if self.bytes >= share:
                self._return_pipe()
                return True
            self._take()
        return False

    def release(self) -> None:
        """Let go of everything; what is in flight is lost."""
        self.over = True
        if self._pipe is not None:
            self._pipes.discard(self._pipe)
            self._pipe, self._in_pipe = None, 0

    def _take(self) -> None:
        """Take bytes in from the source, or its end, or find that there is nothing."""
        try:
            if self._lot and (pipe := self._own_pipe()) is not None:
                count = os.splice(self._source_socket.fileno(), pipe.write_end, pipe.size_bytes, flags=_FLAGS)
                self._in_pipe = count
                self._lot = count >= BUFFER_BYTES
                self.stuck = True
            else:
                count = self._source_socket.recv_into(self._pool_buffer)
                self._lot = count == BUFFER_BYTES
                self.readable = self._lot or self.ending
                self._send(count)
        except BlockingIOError:
            self.readable = False
            return
        except OSError as error:
            raise _Gone(self.source) from error
        if not count:
            self.readable = False
            self._end()

    def _send(self, count: int) -> None:
        """Send on what is in the shared buffer; keep what the sink does not take."""
        if not count:
            return
        try:
            sent = self._sink_socket.send(self._pool_buffer[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise _Gone(self.sink) from error
        self.bytes += sent
        if sent < count:
            self._rest = bytes(self._pool_buffer[sent:count])
            self.stuck = True

    def _flush(self) -> bool:
        """Send what is in flight; say whether nothing is left of it."""
        try:
            while self._in_pipe:
                assert self._pipe is not None
                count = os.splice(
                    self._pipe.read_end, self._sink_socket.fileno(), self._in_pipe, flags=_FLAGS
                )
                self._in_pipe -= count
                self.bytes += count
            while self._rest:
                count = self._sink_socket.send(self._rest)
                self._rest = self._rest[count:]
                self.bytes += count
        except BlockingIOError:
            return False
        except OSError as error:
            raise _Gone(self.sink) from error
        self.stuck = False
        return True

    def _end(self) -> None:
        """Pass on the end of the source."""
        self.over = True
        try:
            self._sink_socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _Gone(self.sink) from error

    def _own_pipe(self) -> Pipe | None:
        if self._pipe is None:
            self._pipe = self._pipes.borrow()
        return self._pipe

    def _return_pipe(self) -> None:
        if self._pipe is not None:
            self._pipes.give_back(self._pipe)
            self._pipe = None


class SpliceRelay:
    """
    The relay that has the kernel move bytes: both legs are TCP (or Unix) sockets without TLS.

    :param client: the client's leg, paused.
    :param builder: the builder's leg, paused.
    :param works: what all relays share.
    """

    def __init__(self, client: Leg, builder: Leg, works: SpliceWorks) -> None:
        self.ended: Deferred[End] = Deferred()
        self._works = works
        self._legs = (client, builder)
        self._up = _Flow(client, builder, works)
        self._down = _Flow(builder, client, works)
        self._registrations: list[Registration] = []
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
        self._works.stalls.leave(leg.transport)
        if not orderly or not self._closing:
            self._abort(self._blame(leg))
        if all(each.is_lost for each in self._legs):
            self.ended.callback(self._end or End.COMPLETED)

    def _begin(self) -> None:
        """Listen to both sockets, and send what came early."""
        if self._end is not None or any(leg.is_lost for leg in self._legs):
            return
        for outgoing, incoming in ((self._up, self._down), (self._down, self._up)):
            heard = self._listener(outgoing, incoming)
            descriptor = outgoing.source.transport.getHandle().fileno()
            self._registrations.append(self._works.poller.register(descriptor, _EVENTS, heard))
        self._run(self._up)
        self._run(self._down)

    def _listener(self, outgoing: _Flow, incoming: _Flow) -> OnEvents:
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
                outgoing.readable = True
                outgoing.ending = bool(events & _ENDING)
                self._run(outgoing)
            if incoming.stuck and events & select.EPOLLOUT:
                self._run(incoming)

        return heard

    def _run(self, flow: _Flow) -> None:
        """Move one share; come back for more, or close when both directions are over."""
        if self._end is not None or self._closing:
            return
        try:
            more = flow.run()
        except _Gone as gone:
            self._abort(self._blame(gone.leg))
            return
        if more:
            self._queue(flow)
        elif self._up.over and self._down.over:
            self._close()

    def _queue(self, flow: _Flow) -> None:
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
            leg.transport.connectionLost(Failure(CONNECTION_DONE))

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
