"""
The factory of client connections: counts them, names them, refuses what is too many, and drains.

Imported by the plugin.
"""

from __future__ import annotations

import socket
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from bkscaler.frontend.acceptor import Acceptor
from bkscaler.frontend.ending import log_end, written, written_ip
from bkscaler.frontend.session import Session
from bkscaler.frontend.shortcut import Shortcut, Shortcuts
from bkscaler.frontend.surroundings import HeadStart, Surroundings
from bkscaler.model import Connection
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay.leg import Leg


class ProxyFactory(ServerFactory):
    """
    Builds the leg of each client, with a :class:`~bkscaler.frontend.session.Session` that sees it through.

    :param shared: what all sessions share.
    :param max_connections: how many may be served at once, >= 1; further ones are closed at once.
    :param prefix: makes the names of our holds unique across proxies.
    :param ways: for clients that need not wait; None makes a session of every client.
    :ivar noisy: False: that we listen is logged once, by the plugin.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        *,
        shared: Surroundings,
        max_connections: int,
        prefix: str,
        ways: Shortcuts | None = None,
    ) -> None:
        self._shared = shared
        self._ways = ways
        self._max_connections = max_connections
        self._names = (f"{prefix}-{number}" for number in count(1))
        self._sessions: dict[str, Session | Shortcut] = {}
        self._waiting: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<ProxyFactory of {len(self._sessions)} connections>"

    def buildProtocol(self, addr: IAddress | None) -> Leg | None:
        """Make the leg of a client, or None, which closes its connection, when there are too many."""
        peer = written(addr)
        return self._leg(next(self._names), peer, None) if self._admit(peer) else None

    def accept(self, client: socket.socket, address: tuple[Any, ...], port: Acceptor) -> None:
        """
        Take a client that has no transport yet; see :class:`~bkscaler.frontend.acceptor.Acceptance`.

        :param port: makes one for a client that becomes a session.
        """
        peer = written_ip(address[0], address[1])
        if not self._admit(peer):
            client.close()
            return
        name = next(self._names)

        def detour(start: HeadStart) -> None:
            port.adopt(client, address, self._leg(name, peer, start))

        if self._ways is None:
            detour(HeadStart(began_s=self._shared.clock.seconds()))
        else:
            self._sessions[name] = Shortcut(
                name=name,
                peer=peer,
                client=client,
                ways=self._ways,
                on_end=self._ended,
                on_detour=detour,
            )

    def connections(self) -> list[Connection]:
        """Say how each connection stands that has not ended, oldest first."""
        return [session.report() for session in self._sessions.values() if session.outcome is None]

    def __len__(self) -> int:
        """Say how many connections are being served."""
        return len(self._sessions)

    def when_empty(self) -> Deferred[None]:
        """
        Wait until no connection is left.

        :returns: fires with None, at once when there is none; never fails. Cancelling ends this wait alone.
        """
        if not self._sessions:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def cut_all(self) -> None:
        """End every connection now; :meth:`when_empty` tells when that is done."""
        for session in list(self._sessions.values()):
            if isinstance(session, Shortcut) and not session.is_joined:
                session.detour()
            self._sessions[session.name].cut()

    def _admit(self, peer: str) -> bool:
        """Count a client; say whether there is room for it."""
        if self._shared.reports is not None:
            self._shared.reports.accepted()
        if len(self._sessions) < self._max_connections:
            return True
        self._turn_away(peer)
        return False

    def _leg(self, name: str, peer: str, start: HeadStart | None) -> Leg:
        """Make the leg of a client, with a session."""
        session = Session(name=name, peer=peer, shared=self._shared, on_end=self._ended, start=start)
        self._sessions[name] = session
        return Leg(session.held)

    def _turn_away(self, peer: str) -> None:
        """Report a connection that is one too many."""
        why = f"{self._max_connections} connections are being served (--max-connections)"
        end = Connection(peer=peer, why=why)
        log_end(self.log.warn, Outcome.OVER_LIMIT, end)
        if self._shared.reports is not None:
            self._shared.reports.ended(Outcome.OVER_LIMIT, end)

    def _ended(self, session: Session | Shortcut) -> None:
        """Forget a client."""
        del self._sessions[session.name]
        if not self._sessions:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)
