"""
The clients of a soak. Each sends bytes that no other moment of any client's would send, and compares.

Every act of a client is noted in its :class:`~bkscaler.soak.views.View` before it is done, so that nobody can
have seen it earlier than the view says.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPullProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from bkscaler.simulation.clients import Builds
from bkscaler.soak.errands import Ending, Errand
from bkscaler.soak.views import View

PIECE_BYTES = 64 * 1024
"""How much is given to the network at once."""
REST_EVERY_BYTES = 256 * 1024
"""How much a slow reader reads between two rests."""
_LENGTH = 1_000_003
"""Of the pattern; a prime, so that it comes back at no power of two."""
_PLAIN = bytes(byte + 1 if bytes([byte]) in (b"P", b"\x16") else byte for byte in range(256))
"""What begins with one of these may be HTTP/2 or TLS, and is held in another way."""


class Pattern:
    """
    The bytes that clients send: a ring of chance, on which each begins somewhere else.

    :param chance: makes them.
    """

    def __init__(self, chance: Random) -> None:
        ring = chance.randbytes(_LENGTH).translate(_PLAIN)
        self._ring = memoryview(ring + ring[:PIECE_BYTES] * 2)

    def piece(self, start: int, length: int) -> memoryview:
        """
        Give bytes of the ring.

        :param start: where, from 0 on.
        :param length: how many, at most twice :data:`PIECE_BYTES`.
        """
        at = start % _LENGTH
        return self._ring[at : at + length]


class Later:
    """
    What a client will do. All of it is dropped when its connection is gone.

    :param clock: when.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: set[IDelayedCall] = set()

    def do(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something so much later; never, if that is infinite."""
        if math.isinf(seconds):
            return

        def now() -> None:
            self._calls.discard(call)
            act()

        call = self._clock.callLater(seconds, now)
        self._calls.add(call)

    def drop(self) -> None:
        """Do nothing more."""
        calls, self._calls = self._calls, set()
        for call in calls:
            call.cancel()


@implementer(IHalfCloseableProtocol, IPullProducer)
class EchoClient(Protocol):
    """
    A client that knows what must come back; or, if its errand has no pieces, does not care.

    :param view: what it knows of itself.
    :param errand: what it does.
    :param pattern: what it sends.
    :param clock: for all times.
    """

    transport: Any = None

    def __init__(self, view: View, errand: Errand, pattern: Pattern, clock: IReactorTime) -> None:
        self.view = view
        self._errand = errand
        self._pattern = pattern
        self._start = int(view.name) * 7919
        self._clock = clock
        self._later = Later(clock)
        self._says = deque(errand.says)
        self._goal = 0
        self._sending = False
        self._read = 0

    def connectionMade(self) -> None:
        """Begin."""
        self.view.came_s = self._clock.seconds()
        self.transport.setTcpNoDelay(True)
        self._later.do(self._errand.patience_s, self.leave)
        if self._errand.words is not None:
            self.view.spoke_s = self._clock.seconds()
            self.transport.write(self._errand.words)
        elif self._says:
            self._go_on()

    def leave(self, ending: Ending | None = None) -> None:
        """
        Leave, unless it has left.

        :param ending: how; None: as its errand says. Who still sends can only reset.
        """
        view = self.view
        if view.gone_s < math.inf:
            return
        ending = ending or self._errand.ending
        if self._sending:
            ending = Ending.RESET
            self._end_sending()
        view.left_s = self._clock.seconds()
        view.waits_s = math.inf
        if ending is Ending.FINISH:
            view.finished = True
            view.waits_s = view.left_s
            self.transport.resumeProducing()
            self.transport.loseWriteConnection()
        elif ending is Ending.HANG_UP:
            self.transport.loseConnection()
        else:
            view.reset = True
            self.transport.abortConnection()

    def resumeProducing(self) -> None:
        """Send the next bytes."""
        view = self.view
        data = self._pattern.piece(self._start + view.sent, min(PIECE_BYTES, self._goal - view.sent))
        view.sent += len(data)
        if view.sent == self._goal:
            self._end_sending()
        self.transport.write(bytes(data))

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._sending = False

    def dataReceived(self, data: bytes) -> None:
        """Compare."""
        view, now_s = self.view, self._clock.seconds()
        if not self._errand.says:
            return
        view.served_s = min(view.served_s, now_s)
        at = 0
        while at < len(data) and not view.wrong:
            size = min(PIECE_BYTES, len(data) - at)
            if self._pattern.piece(self._start + view.received + at, size) != data[at : at + size]:
                view.wrong = f"got something else than it had sent, after {view.received} bytes"
            at += size
        view.received += len(data)
        if view.received > view.sent:
            view.wrong = view.wrong or f"got {view.received} bytes, and had sent {view.sent}"
        if view.waits_s < math.inf:
            view.waits_s = now_s
        self._rest(len(data))
        if view.received == self._goal and view.left_s == math.inf:
            view.waits_s = math.inf
            self._go_on()

    def readConnectionLost(self) -> None:
        """Close, too."""
        self._note_cut()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember the end."""
        self._note_cut()
        self.view.lost_s = self._clock.seconds()
        self.view.waits_s = math.inf
        if self.view.finished and reason.check(ConnectionLost):
            self.view.cut_s = self.view.lost_s
        self._later.drop()

    def _note_cut(self) -> None:
        if self.view.gone_s == math.inf:
            self.view.cut_s = self._clock.seconds()

    def _go_on(self) -> None:
        if self._says:
            pause_s, size = self._says.popleft()
            self._later.do(pause_s, lambda: self._say(size))
        else:
            self._later.do(self._errand.stays_s, self.leave)

    def _say(self, size: int) -> None:
        view = self.view
        if view.gone_s < math.inf:
            return
        view.waits_s = self._clock.seconds()
        view.spoke_s = min(view.spoke_s, view.waits_s)
        self._goal += size
        self._sending = True
        self.transport.registerProducer(self, False)

    def _end_sending(self) -> None:
        self._sending = False
        self.transport.unregisterProducer()

    def _rest(self, count: int) -> None:
        """Let a slow reader rest."""
        self._read += count
        view = self.view
        done = view.received == self._goal or view.gone_s < math.inf
        if done or not self._errand.rests_s or self._read < REST_EVERY_BYTES:
            return
        self._read = 0
        self.transport.pauseProducing()
        self._later.do(self._errand.rests_s, self.transport.resumeProducing)
        if view.waits_s < math.inf:
            view.waits_s += self._errand.rests_s


class _RightNow:
    """A clock in the way of the simulation's."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.callLater = clock.callLater

    @property
    def rightNow(self) -> float:
        return self._clock.seconds()


class GrpcClient(Builds):
    """
    A gRPC client, the simulation's, that keeps a view.

    :param view: what it knows of itself.
    :param errand: what it does.
    :param clock: for all times.
    """

    def __init__(self, view: View, errand: Errand, clock: IReactorTime) -> None:
        super().__init__(view.name, _RightNow(clock))  # type: ignore[arg-type]  # as far as it looks
        self.view = view
        self._errand = errand
        self._acts = Later(clock)
        self._to_say = deque(errand.says)

    def connectionMade(self) -> None:
        """Begin."""
        super().connectionMade()
        self.view.came_s = self._clock.rightNow
        self.transport.setTcpNoDelay(True)
        self._acts.do(self._errand.patience_s, self._lose_patience)
        self._go_on()

    def say(self, size: int) -> None:
        """Make a call."""
        if self.view.gone_s == math.inf:
            self.view.waits_s = self._clock.rightNow
            self.view.spoke_s = min(self.view.spoke_s, self.view.waits_s)
            super().say(size)

    def leave(self, ending: Ending | None = None) -> None:
        """Leave, unless it has left; it never half-closes."""
        if self.view.gone_s < math.inf:
            return
        self.view.left_s, self.view.waits_s = self._clock.rightNow, math.inf
        if (ending or self._errand.ending) is Ending.RESET:
            self.view.reset = True
            self.reset()
        else:
            self.hang_up()

    def dataReceived(self, data: bytes) -> None:
        """Take answers."""
        answered = self.answered
        super().dataReceived(data)
        view, now_s = self.view, self._clock.rightNow
        view.wrong = view.wrong or self.wrong or "; ".join(self.refusals)
        if self.answered == answered or view.gone_s < math.inf:
            return
        view.served_s = min(view.served_s, now_s)
        view.waits_s = now_s if self.calls else math.inf
        if not self.calls:
            self._go_on()

    def readConnectionLost(self) -> None:
        """Close, too."""
        self._note_cut()
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember the end."""
        self._note_cut()
        self.view.lost_s, self.view.waits_s = self._clock.rightNow, math.inf
        self._acts.drop()
        super().connectionLost(reason)

    def _go_on(self) -> None:
        if self._to_say:
            pause_s, size = self._to_say.popleft()
            self._acts.do(pause_s, lambda: self.say(size))
        else:
            self._acts.do(self._errand.stays_s, self.leave)

    def _lose_patience(self) -> None:
        """Leave, or take the calls back first."""
        if self._errand.cancels and self.view.gone_s == math.inf:
            self.view.cancelled, self.view.waits_s = True, math.inf
            self.cancel()
            self._acts.do(0.3, self.leave)
        else:
            self.leave()

    def _note_cut(self) -> None:
        if self.view.gone_s == math.inf:
            self.view.cut_s = self._clock.rightNow
