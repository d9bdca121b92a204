"""
A TCP port whose clients are accepted without a transport of Twisted's being put around them. Linux.

In all else it is Twisted's port: it binds, listens, ends, and copes with a lack of descriptors. Imported by
``frontend.listener`` and the plugin.
"""

from __future__ import annotations

import select
import socket
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.interfaces import IProtocol

from bkscaler.relay import sockets
from bkscaler.relay.poller import Poller, Registration


class Acceptance(Protocol):
    """A factory that takes clients as they are."""

    def accept(self, client: socket.socket, address: tuple[Any, ...], port: Acceptor) -> None:
        """
        Take a client; must not raise.

        :param client: its socket, non-blocking.
        :param address: its address, as sockets give it.
        :param port: puts a transport around it if need be (:meth:`Acceptor.adopt`).
        """


class Acceptor(tcp.Port):
    """
    The port. It listens in the poller, which accepts one client at a time between the others' events.

    :param args: as for :class:`twisted.internet.tcp.Port`; its factory also is an :class:`Acceptance`.
    :param poller: tells when somebody has come.
    """

    factory: Any

    def __init__(self, *args: Any, poller: Poller) -> None:
        super().__init__(*args)
        self._poller = poller
        self._heard: Registration | None = None

    def startListening(self) -> None:
        """Listen; what is accepted has the options that all our connections have."""
        super().startListening()
        sockets.tune_handle(self.socket)

    def startReading(self) -> None:
        """Begin to accept."""
        descriptor: int = self.fileno()  # type: ignore[no-untyped-call]  # Port has no annotations
        self._heard = self._poller.register(descriptor, select.EPOLLIN, self._accept, again_and_again=True)

    def stopReading(self) -> None:
        """Accept no more. May be called twice."""
        if self._heard is not None:
            self._poller.forget(self._heard)
            self._heard = None

    def adopt(self, client: socket.socket, address: tuple[Any, ...], protocol: IProtocol) -> None:
        """Put a transport around a client's socket, as Twisted does with each that it accepts."""
        number = self.sessionno
        self.sessionno = number + 1
        protocol.makeConnection(self.transport(client, protocol, address, self, number, self.reactor))

    def _accept(self, events: int) -> None:
        try:
            client, address = self.socket.accept()
        except BlockingIOError:
            return
        except OSError:  # Twisted knows what to do without descriptors, and what is better ignored
            self.doRead()  # type: ignore[no-untyped-call]  # nor here
            return
        client.setblocking(False)
        self.factory.accept(client, address, self)


class Ports:
    """
    A reactor for endpoints that listen, whose TCP ports are acceptors. In all else it is the reactor.

    :param reactor: one with sockets.
    :param poller: see :class:`Acceptor`.
    """

    def __init__(self, reactor: Any, poller: Poller) -> None:
        self._reactor = reactor
        self._poller = poller

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Acceptor:
        """Listen; see :class:`twisted.internet.interfaces.IReactorTCP`."""
        acceptor = Acceptor(port, factory, backlog, interface, self._reactor, poller=self._poller)
        acceptor.startListening()
        return acceptor
