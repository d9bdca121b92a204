"""
The factory of client connections: counts them, names them, refuses what is too many, and drains.

Imported by the plugin.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from bkscaler.frontend.session import Session, Surroundings, log_end
from bkscaler.model import Connection
from bkscaler.observability.outcomes import Outcome
from bkscaler.relay.leg import Leg


class ProxyFactory(ServerFactory):
    """
    Builds the leg of each client, with a :class:`~bkscaler.frontend.session.Session` that sees it through.

    :param shared: what all sessions share.
    :param max_connections: how many may be served at once, >= 1; further ones are closed at once.
    :param prefix: makes the names of our holds unique across proxies.
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
    ) -> None:
        self._shared = shared
        self._max_connections = max_connections
        self._names = (f"{prefix}-{number}" for number in count(1))
        self._sessions: dict[Session, None] = {}
        self._waiting: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<ProxyFactory of {len(self._sessions)} connections>"

    def buildProtocol(self, addr: IAddress | None) -> Leg | None:
        """Make the leg of a client, or None, which closes its connection, when there are too many."""
        peer = _written(addr)
        if self._shared.reports is not None:
            self._shared.reports.accepted()
        if len(self._sessions) >= self._max_connections:
            self._turn_away(peer)
            return None
        session = Session(name=next(self._names), peer=peer, shared=self._shared, on_end=self._ended)
        self._sessions[session] = None
        return Leg(session.held)

    def connections(self) -> list[Connection]:
        """Say how each connection stands that has not ended, oldest first."""
        return [session.report() for session in self._sessions if session.outcome is None]

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
        for session in list(self._sessions):
            session.cut()

    def _turn_away(self, peer: str) -> None:
        """Report a connection that is one too many."""
        why = f"{self._max_connections} connections are being served (--max-connections)"
        end = Connection(peer=peer, why=why)
        log_end(self.log.warn, Outcome.OVER_LIMIT, end)
        if self._shared.reports is not None:
            self._shared.reports.ended(Outcome.OVER_LIMIT, end)

    def _ended(self, session: Session) -> None:
        """Forget a session."""
        del self._sessions[session]
        if not self._sessions:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)


def _written(address: Any) -> str:
    """Write an address as the log shows it; an IPv4 client of an IPv6 socket as what it is."""
    host = getattr(address, "host", None)
    if host is None:
        return "a local client"
    host = host.removeprefix("::ffff:")
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
