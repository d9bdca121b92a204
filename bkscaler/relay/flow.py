"""
One direction of a relay that the kernel moves: from one socket to another, a share at a time. Linux.

- *A little* (less than 64 KiB was there) is received and sent through one buffer that all flows share: two
  system calls, and no pipe is touched.
- *A lot* is spliced through a pipe from the pool, which goes back as soon as it is empty. Without a pipe to
  be had it is copied like a little.

What the sink does not take stays in the pipe, or, if it was copied, in the flow: at most one share. An idle
flow owns nothing. ``EAGAIN`` from ``splice`` would not tell an empty socket from a full pipe, so bytes are
only taken in when nothing is in flight. Imported by ``relay.splice``.
"""

from __future__ import annotations

import os
import socket

from bkscaler.relay.leg import Leg
from bkscaler.relay.pipes import Pipe, PipePool

BUFFER_BYTES = 64 * 1024
"""A read that fills it tells a lot from a little."""
SHARE_BYTES = 512 * 1024
"""How much one flow moves before the others have their turn; it ends with the pipeful that reaches it."""
_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


class Gone(Exception):
    """
    One end of a flow has failed. Reset both.

    :ivar leg: the one that has.
    """

    def __init__(self, leg: Leg) -> None:
        super().__init__()
        self.leg = leg


class Flow:
    """
    One direction.

    :param source: the leg that is read.
    :param sink: the leg that is written.
    :param pipes: lends pipes.
    :param buffer: shared with every other flow, as bytes are in it only within one call.
    :ivar bytes: how many the sink has taken.
    :ivar readable: whether the source may have something.
    :ivar ending: whether the source's end is near, so that it must be read to the end.
    :ivar stuck: whether something is in flight that the sink did not take.
    :ivar queued: whether it will be called again without an event.
    :ivar over: whether the end has been passed on.
    :ivar last: whether both sockets are closed as soon as it is over, which passes the end on as well.
    """

    __slots__ = (
        "_buffer",
        "_in_pipe",
        "_lot",
        "_pipe",
        "_pipes",
        "_rest",
        "_sink_socket",
        "_source_socket",
        "bytes",
        "ending",
        "last",
        "over",
        "queued",
        "readable",
        "sink",
        "source",
        "stuck",
    )

    def __init__(self, source: Leg, sink: Leg, *, pipes: PipePool, buffer: memoryview) -> None:
        self.source = source
        self.sink = sink
        self._source_socket: socket.socket = source.transport.getHandle()
        self._sink_socket: socket.socket = sink.transport.getHandle()
        self._pipes = pipes
        self._buffer = buffer
        self._pipe: Pipe | None = None
        self._in_pipe = 0
        self._rest: bytes = b""
        self._lot = False
        self.readable = self.ending = self.stuck = self.queued = self.over = self.last = False
        self.bytes = 0

    def put(self, data: bytes) -> None:
        """Have bytes to send before any that are read."""
        self._rest += data
        self.stuck = bool(self._rest)

    def pass_a_little(self) -> bool:
        """
        Do what most events call for and nothing more: one read, and one write of all of it.

        :returns: whether that was all. If not, :meth:`run` goes on from where this has stopped.
        :raises Gone: when either end has failed.
        """
        if self.stuck or self._lot:
            return False
        try:
            count = self._source_socket.recv_into(self._buffer)
        except BlockingIOError:
            return True
        except OSError as error:
            raise Gone(self.source) from error
        if not count:
            return False
        self._send(count)
        self._lot = count == BUFFER_BYTES
        return not (self._lot or self.stuck)

    def run(self) -> bool:
        """
        Move one share.

        :returns: whether there may be more to move, now.
        :raises Gone: when either end has failed.
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
                count = self._source_socket.recv_into(self._buffer)
                self._lot = count == BUFFER_BYTES
                self.readable = self._lot or self.ending
                self._send(count)
        except BlockingIOError:
            self.readable = False
            return
        except OSError as error:
            raise Gone(self.source) from error
        if not count:
            self.readable = False
            self._end()

    def _send(self, count: int) -> None:
        """Send on what is in the shared buffer; keep what the sink does not take."""
        if not count:
            return
        try:
            sent = self._sink_socket.send(self._buffer[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Gone(self.sink) from error
        self.bytes += sent
        if sent < count:
            self._rest = bytes(self._buffer[sent:count])
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
            raise Gone(self.sink) from error
        self.stuck = False
        return True

    def _end(self) -> None:
        """Pass on the end of the source."""
        self.over = True
        if self.last:
            return
        try:
            self._sink_socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Gone(self.sink) from error

    def _own_pipe(self) -> Pipe | None:
        if self._pipe is None:
            self._pipe = self._pipes.borrow()
        return self._pipe

    def _return_pipe(self) -> None:
        if self._pipe is not None:
            self._pipes.give_back(self._pipe)
            self._pipe = None
