"""Tests of socket options and of what hears a peer's end, on loopback: only the kernel can tell."""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from bkscaler.relay import sockets
from bkscaler.relay.hangups import Deaf, EpollHangups, Hangup
from bkscaler.relay.poller import Poller
from bkscaler.relay.stalls import CAN_SPARE, Stalls


@implementer(ITCPTransport)
class BareTransport:  # type: ignore[misc]  # what is not used here is left out
    """A transport of which only the socket matters."""

    def __init__(self, handle: socket.socket) -> None:
        self.handle = handle

    def getHandle(self) -> socket.socket:
        """Give the socket."""
        return self.handle

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set it."""
        self.handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Set it."""
        self.handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Connect two TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    return one, other


class SocketCase(SynchronousTestCase):
    """Two connected sockets, ours and the peer's."""

    def setUp(self) -> None:
        """Connect."""
        self.ours, self.peer = socket_pair()
        self.addCleanup(self.peer.close)
        self.addCleanup(self.ours.close)
        self.transport: Any = BareTransport(self.ours)

    def option(self, name: str) -> int:
        """Read an option of our socket."""
        return self.ours.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


class TuneTests(SocketCase):
    """Socket options."""

    def test_options(self):
        """No delay is set, and a dead peer is found within a minute, with bytes in flight or without."""
        sockets.tune(self.transport)
        self.assertTrue(self.option("TCP_NODELAY"))
        self.assertTrue(self.ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        silence_s = self.option("TCP_KEEPIDLE") + self.option("TCP_KEEPINTVL") * self.option("TCP_KEEPCNT")
        self.assertLessEqual(silence_s, 60)
        self.assertEqual(self.option("TCP_USER_TIMEOUT"), 60_000)

    def test_other_transports(self):
        """A transport that is not TCP is left alone."""
        sockets.tune(object())


class StallsTests(SocketCase):
    """Peers that are alive and do not read."""

    if not CAN_SPARE:
        skip = "this system has no TCP_USER_TIMEOUT"

    def fill(self) -> None:
        """Send until the peer's window is closed."""
        self.ours.setblocking(False)
        try:
            while True:
                self.ours.send(bytes(65536))
        except BlockingIOError:
            pass

    def wait_for_window_probe(self) -> None:
        """Wait until the kernel has begun to probe for a window, for 5 s at most."""
        for _ in range(500):
            if sockets.peer_has_closed_its_window(self.ours):
                return
            select.select([], [], [], 0.01)
        self.fail("the window has not closed")

    def drain_peer(self) -> None:
        """Read everything at the peer's end."""
        self.peer.settimeout(0.3)
        try:
            while self.peer.recv(1 << 20):
                pass
        except TimeoutError:
            pass

    def test_alive_and_not_reading(self):
        """The limit is lifted while a living peer's window is closed, and set again when bytes flow."""
        clock = Clock()
        stalls = Stalls(clock, limit_ms=2000, every_s=1.0)
        sockets.limit_silence(self.ours, 2000)
        stalls.look_after(self.transport)
        clock.advance(1)
        self.assertEqual(self.option("TCP_USER_TIMEOUT"), 2000)
        self.fill()
        self.wait_for_window_probe()
        clock.advance(1)
        self.assertEqual(self.option("TCP_USER_TIMEOUT"), 0)
        self.drain_peer()
        clock.advance(1)
        self.assertEqual(self.option("TCP_USER_TIMEOUT"), 2000)
        stalls.leave(self.transport)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_the_trap(self):
        """Without sparing, Linux cuts a living peer that does not read; with it the connection lives on."""
        sockets.limit_silence(self.ours, 1000)
        self.fill()
        self.wait_for_window_probe()
        stalls = Stalls(clock := Clock(), limit_ms=1000, every_s=0.1)
        stalls.look_after(self.transport)
        clock.advance(0.1)
        poll = select.poll()
        poll.register(self.ours, select.POLLERR)
        self.assertEqual(poll.poll(2500), [])
        sockets.limit_silence(self.ours, 1000)
        self.assertNotEqual(poll.poll(10_000), [])

    def test_idle(self):
        """Without connections, and with one that is not TCP, nothing is scheduled."""
        stalls = Stalls(clock := Clock())
        stalls.look_after(object())
        stalls.leave(object())
        self.assertEqual(clock.getDelayedCalls(), [])


class HangupsTests(SocketCase):
    """Hearing of an end without reading."""

    def setUp(self) -> None:
        """Make the epoll in a reactor that is turned by hand."""
        super().setUp()
        self.reactor: Any = MemoryReactorClock()
        self.poller = Poller(self.reactor)
        self.addCleanup(self.poller.close)
        self.hangups = EpollHangups(self.poller)
        self.heard: list[Hangup] = []

    def hear(self) -> list[Hangup]:
        """Turn the reactor; give what was heard since."""
        select.select([self.poller.fileno()], [], [], 1.0)
        self.poller.doRead()
        heard, self.heard[:] = list(self.heard), []
        return heard

    def reset_by_peer(self) -> None:
        """Reset the connection."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def test_finish_and_reset(self):
        """A half-close is heard once, then a reset."""
        self.hangups.watch(self.transport, self.heard.append)
        self.peer.sendall(b"unread")
        self.peer.shutdown(socket.SHUT_WR)
        self.assertEqual(self.hear(), [Hangup.FINISHED])
        self.poller.doRead()
        self.assertEqual(self.heard, [])
        self.reset_by_peer()
        self.assertEqual(self.hear(), [Hangup.LOST])

    def test_before_the_watch(self):
        """What had happened before the watch began is heard as well."""
        self.reset_by_peer()
        self.hangups.watch(self.transport, self.heard.append)
        self.assertEqual(self.hear(), [Hangup.LOST])

    def test_end(self):
        """A watch that has ended hears nothing; it may be ended twice, and after the socket is closed."""
        watch = self.hangups.watch(self.transport, self.heard.append)
        watch.end()
        self.reset_by_peer()
        self.poller.doRead()
        self.assertEqual(self.heard, [])
        self.ours.close()
        watch.end()

    def test_number_used_again(self):
        """Ending a watch late leaves alone a newer one on a descriptor of the same number."""
        old = self.hangups.watch(self.transport, lambda _: self.fail("the old one heard"))
        number = self.ours.fileno()
        other, peer = socket_pair()
        self.ours.close()
        with other:
            reused = socket.socket(fileno=os.dup2(other.fileno(), number))
        self.addCleanup(reused.close)
        self.hangups.watch(BareTransport(reused), self.heard.append)
        old.end()
        peer.close()
        self.assertEqual(self.hear(), [Hangup.FINISHED])

    def test_ending_each_other(self):
        """A watch that is ended by what another one heard in the same turn hears nothing."""
        ours, peer = socket_pair()
        self.addCleanup(ours.close)
        watches = []

        def heard(hangup):
            self.heard.append(hangup)
            for watch in watches:
                watch.end()

        watches += [self.hangups.watch(BareTransport(each), heard) for each in (self.ours, ours)]
        peer.close()
        self.peer.close()
        self.assertEqual(len(self.hear()), 1)

    def test_deaf(self):
        """Systems without epoll have one that hears nothing."""
        Deaf().watch(self.transport, self.heard.append).end()


class ReactorTests(TestCase):
    """The epoll in a real reactor."""

    def test_in_the_reactor(self):
        """The reactor wakes for a hang-up of a connection that nobody reads."""
        from twisted.internet import reactor  # noqa: PLC0415  # the one that trial runs

        ours, peer = socket_pair()
        self.addCleanup(ours.close)
        poller = Poller(reactor)
        self.addCleanup(poller.close)
        hangups = EpollHangups(poller)
        heard = Deferred()
        hangups.watch(BareTransport(ours), heard.callback)
        peer.close()
        return heard.addCallback(self.assertIs, Hangup.FINISHED)
