"""
Hearing that a peer has hung up while its transport is paused.

A paused Twisted transport is not in the reactor at all and hears nothing, neither an orderly end nor a
reset. A second epoll, itself one reader of the reactor, asks for nothing but the end of each connection;
it is edge-triggered, so that an end that has been told is not told again. Only what is paused is watched:
a transport that reads hears for itself. Imported by this room and the frontend.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from zope.interface import implementer


class Hangup(Enum):
    """What became of the peer of a paused transport."""

    FINISHED = "it will send no more; it may still read, and bytes may still be there to be read"
    LOST = "the connection was reset or has failed"


OnHangup = Callable[[Hangup], None]


class Watch(Protocol):
    """One connection being watched."""

    def end(self) -> None:
        """Watch no more. May be called twice, and after the connection has been closed."""


class Hangups(Protocol):
    """Watches paused connections; :func:`make_hangups` chooses how."""

    def watch(self, transport: Any, on_hangup: OnHangup) -> Watch:
        """
        Watch one connection, until the watch is ended.

        :param transport: a connected transport, paused.
        :param on_hangup: called from the reactor, also when the peer has hung up before; it may be told
            the same more than once.
        """


def make_hangups(reactor: Any) -> Hangups:
    """Choose the way of this system: epoll, or nothing where there is none."""
    return EpollHangups(reactor) if hasattr(select, "epoll") else Deaf()


class Deaf:
    """Hears nothing: on systems without epoll a paused client's end is seen when it is read again."""

    def watch(self, transport: Any, on_hangup: OnHangup) -> Watch:
        """Do nothing."""
        return self

    def end(self) -> None:
        """Do nothing."""


class _EpollWatch:
    """One descriptor in the epoll."""

    def __init__(self, hangups: EpollHangups, descriptor: int, on_hangup: OnHangup) -> None:
        self._hangups = hangups
        self.descriptor = descriptor
        self.on_hangup = on_hangup

    def end(self) -> None:
        """Take the descriptor out, unless its number is already somebody else's."""
        self._hangups.forget(self)


@implementer(IReadDescriptor)
class EpollHangups:
    """
    The epoll in the reactor. One for the process; made when first needed, kept to its end.

    :param reactor: where it is a reader.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._watches: dict[int, _EpollWatch] = {}
        self._epoll: select.epoll | None = None

    def __repr__(self) -> str:
        return f"<EpollHangups of {len(self._watches)}>"

    def watch(self, transport: Any, on_hangup: OnHangup) -> Watch:
        """Watch one connection; see :class:`Hangups`."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        watch = _EpollWatch(self, transport.getHandle().fileno(), on_hangup)
        self._watches[watch.descriptor] = watch
        self._epoll.register(watch.descriptor, select.EPOLLRDHUP | select.EPOLLET)
        return watch

    def forget(self, watch: _EpollWatch) -> None:
        """End a watch. A closed descriptor has left the epoll by itself."""
        if self._epoll is None or self._watches.get(watch.descriptor) is not watch:
            return
        del self._watches[watch.descriptor]
        with suppress(OSError):
            self._epoll.unregister(watch.descriptor)

    def close(self) -> None:
        """Leave the reactor and close the epoll."""
        if self._epoll is not None:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None
            self._watches.clear()

    def fileno(self) -> int:
        """Give the descriptor the reactor waits on."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """Name us in the reactor's own messages."""
        return "hangups"

    def doRead(self) -> None:
        """Tell what has happened. Watches that end meanwhile are told nothing."""
        assert self._epoll is not None
        told = [(self._watches.get(descriptor), events) for descriptor, events in self._epoll.poll(0)]
        for watch, events in told:
            if watch is not None and self._watches.get(watch.descriptor) is watch:
                watch.on_hangup(Hangup.LOST if events & select.EPOLLERR else Hangup.FINISHED)

    def connectionLost(self, reason: Any) -> None:
        """Hear from the reactor that it stops; nothing is to be done."""
