"""
A second epoll, itself one reader of the reactor, for sockets that transports have lent us.

Three uses: hearing of hang-ups of paused transports (:mod:`bkscaler.relay.hangups`), moving the bytes of
joined connections (:mod:`bkscaler.relay.splice`), and bringing connections that far which need no transport
(``frontend.shortcut``). It is edge-triggered: a socket is registered once for its whole life in here, and
nothing is changed when it has been served, nor when it gets another owner, who puts its own ``on_events`` in
the place of the last.

Work is done in turns. A turn ends after :data:`TURN_S`, so that a bulk transfer delays nobody for long, be
it another connection, an accept or a timer; who has more to do is called again in the next turn, after
everybody else. Imported by this room, the frontend and the plugin.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

TURN_S = 0.001
"""How long a turn may take before the reactor is given a chance, not counting the call that is under way."""
OnEvents = Callable[[int], None]
EVENTS_AT_ONCE = 64
"""How many sockets are asked for in one system call."""


class Registration:
    """
    One socket in the poller.

    :ivar descriptor: its number.
    :ivar events: what is listened for.
    :ivar on_events: told the epoll events, from the reactor; must not raise.
    """

    __slots__ = ("descriptor", "events", "on_events")

    def __init__(self, descriptor: int, events: int, on_events: OnEvents) -> None:
        self.descriptor = descriptor
        self.events = events
        self.on_events = on_events


@implementer(IReadDescriptor)
class Poller:
    """
    The epoll in the reactor. One for the process; made when first needed, kept to its end.

    :param reactor: where it is a reader, and what keeps time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        self._registered: dict[int, Registration] = {}
        self._ready: deque[Callable[[], None]] = deque()
        self._turn_is_due = False

    def __repr__(self) -> str:
        return f"<Poller of {len(self._registered)}>"

    def register(
        self, descriptor: int, events: int, on_events: OnEvents, *, again_and_again: bool = False
    ) -> Registration:
        """
        Begin to listen.

        :param descriptor: of a socket that is open; one whose number was used before and has been closed
            meanwhile is another one.
        :param events: epoll's; EPOLLERR and EPOLLHUP are always among them. What is so already is told as
            well.
        :param on_events: see :class:`Registration`.
        :param again_and_again: whether to tell what is so for as long as it is so (level-triggered), and not
            only when it has become so (EPOLLET).
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        edges = 0 if again_and_again else select.EPOLLET
        registration = Registration(descriptor, events | edges, on_events)
        self._registered[descriptor] = registration
        self._epoll.register(descriptor, registration.events)
        return registration

    def listen_also(self, registration: Registration, events: int) -> None:
        """Listen for more, from now on; what is so already is told. Nothing happens to one that has ended."""
        current = self._registered.get(registration.descriptor) is registration
        if current and self._epoll is not None and registration.events & events != events:
            registration.events |= events
            self._epoll.modify(registration.descriptor, registration.events)

    def forget(self, registration: Registration, *, closing: bool = False) -> None:
        """
        End listening. Harmless when it has ended, or when the number is already somebody else's.

        :param closing: True when the socket is about to be closed, which takes it out of the epoll for
            nothing; its last events are dropped.
        """
        if self._registered.get(registration.descriptor) is not registration:
            return
        del self._registered[registration.descriptor]
        if not closing and self._epoll is not None:
            with suppress(OSError):
                self._epoll.unregister(registration.descriptor)

    def call_again(self, act: Callable[[], None]) -> None:
        """Call something in the next turn: it has more to do, and has had its share."""
        self._ready.append(act)
        self._take_turn_later()

    def close(self) -> None:
        """Leave the reactor and close the epoll."""
        if self._epoll is not None:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None
            self._registered.clear()

    def fileno(self) -> int:
        """Give the descriptor the reactor waits on."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """Name us in the reactor's own messages."""
        return "poller"

    def doRead(self) -> None:
        """Tell everybody what has happened, and let those go on who have more to do, for one turn."""
        over_s = self._reactor.seconds() + TURN_S
        while self._epoll is not None:
            events = self._epoll.poll(0, EVENTS_AT_ONCE)
            if len(events) == 1:
                descriptor, what = events[0]
                registration = self._registered.get(descriptor)
                if registration is not None:
                    registration.on_events(what)
            elif events:
                self._tell(events)
            for _ in range(len(self._ready)):
                self._ready.popleft()()
            if not events and not self._ready:
                return
            if self._reactor.seconds() >= over_s:
                break
        if self._ready:
            self._take_turn_later()

    def connectionLost(self, reason: Any) -> None:
        """Hear from the reactor that it stops; nothing is to be done."""

    def _tell(self, events: list[tuple[int, int]]) -> None:
        """Tell several; who was forgotten meanwhile is told nothing, nor is who has got its number."""
        registered = self._registered
        told = [(registered.get(descriptor), what) for descriptor, what in events]
        for registration, what in told:
            if registration is not None and registered.get(registration.descriptor) is registration:
                registration.on_events(what)

    def _take_turn_later(self) -> None:
        """Take another turn soon although no socket may say so."""
        if not self._turn_is_due:
            self._turn_is_due = True
            self._reactor.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._turn_is_due = False
        self.doRead()
