"""
Hearing that a peer has hung up while its transport is paused.

A paused Twisted transport is not in the reactor at all and hears nothing, neither an orderly end nor a
reset. :mod:`bkscaler.relay.poller` is asked for nothing but the end of each such connection; a transport that
reads hears for itself. Imported by this room, the frontend and the plugin.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from bkscaler.relay.poller import Poller, Registration


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
    """Watches paused connections."""

    def watch(self, transport: Any, on_hangup: OnHangup) -> Watch:
        """
        Watch one connection, until the watch is ended.

        :param transport: a connected transport, paused.
        :param on_hangup: called from the reactor, also when the peer has hung up before; it may be told
            the same more than once.
        """


class EpollHangups:
    """
    Hears through a poller.

    :param poller: shared with others.
    """

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def watch(self, transport: Any, on_hangup: OnHangup) -> Watch:
        """Watch one connection; see :class:`Hangups`."""

        def heard(events: int) -> None:
            on_hangup(Hangup.LOST if events & select.EPOLLERR else Hangup.FINISHED)

        descriptor = transport.getHandle().fileno()
        return _EpollWatch(self._poller, self._poller.register(descriptor, select.EPOLLRDHUP, heard))


class _EpollWatch:
    """One registration."""

    def __init__(self, poller: Poller, registration: Registration) -> None:
        self._poller = poller
        self._registration = registration

    def end(self) -> None:
        """Take the descriptor out, unless its number is already somebody else's."""
        self._poller.forget(self._registration)


class Deaf:
    """Hears nothing: on systems without epoll a paused client's end is seen when it is read again."""

    def watch(self, transport: Any, on_hangup: OnHangup) -> Watch:
        """Do nothing."""
        return self

    def end(self) -> None:
        """Do nothing."""
